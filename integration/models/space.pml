/* A sender that waits for room (docs/abi.md section 4, "Room"), with policy Block.
 *
 * sender: shmio/writer_room.go (fits, room, refresh), writer_return.go (Reclaim, ArmSpace, DisarmSpace),
 *         node/route_push.go (stage, wait). reader and returner, two goroutines of one process:
 *         shmio/reader_receive.go (pass), reader_return.go (Return, putReturn, ringSpace).
 *
 * Reading is driven by what is there (bell.pml has its bell). There is no backstop: a wake-up that is lost is a sender
 * that waits for ever, an invalid end state.
 */
#ifndef D
#define D 4       /* depth, slots */
#endif
#ifndef OUT
#define OUT (D+2) /* blocks that may be out */
#endif
#ifndef N
#define N (D+3)   /* messages */
#endif
#define HOLD (OUT > D -> OUT - D : OUT)

/* shared words, each with one writer */
byte tail, wantsSpace;
byte head, returnedTail;
bit bell; /* to the sender; one ring more finds it ringing already */

/* words of the reader's process */
byte spaceFor, spaceSeen, spaceAt, toReturn, held;
byte rungEpoch; /* for the assertion alone */

#define fits (tail - h < D && tail - r < OUT)

proctype sender() {
  byte h, r, e;
  bit gaveUp;
  do
  :: tail == N -> break
  :: else ->
     h = head; r = returnedTail; /* refresh: head first */
     assert(h <= tail && r <= tail);
     if
     :: fits -> tail = tail + 1
     :: else ->
#ifndef SAME_EPOCH
        e++;
#else
        e = 1;
#endif
#ifdef LOOK_BEFORE_WISH
        h = head; r = returnedTail;
        wantsSpace = e;
#else
        wantsSpace = e;
        h = head; r = returnedTail;
#endif
        if
        :: fits /* there is room after all; the wish stands */
        :: else ->
           if
           :: bell -> bell = 0
           :: !gaveUp -> gaveUp = 1; wantsSpace = 0; bell = 0 /* the caller's context ended; it comes again */
           fi
        fi
     fi
  od
}

inline ringSpace() {
#ifndef EPOCH_BEFORE_LAST
  last = spaceFor;
#endif
#ifndef WISH_BEFORE_CURSOR
  e = wantsSpace;
#endif
#ifdef EPOCH_BEFORE_LAST
  last = spaceFor; /* a stale epoch looks like a new one, and the present one is rung for twice */
#endif
  if
  :: e == 0 || e == last
  :: else ->
     h = head;
     t = tail;
     d_step { first = (spaceSeen != e); spaceSeen = e }
#ifdef RUNG_WHEN_SEEN
     if :: first -> spaceAt = h + (t - h) / 4; spaceFor = e :: else fi;
#else
     if :: first -> spaceAt = h + (t - h) / 4 :: else fi;
#endif
#ifdef QUARTER_TO_BE_MET
     if
     :: spaceAt != h
#else
     if
     :: h != t && spaceAt > h
#endif
     :: else ->
        d_step { /* CompareAndSwap */
          first = (spaceFor == last);
          if :: first -> spaceFor = e; assert(rungEpoch < e); rungEpoch = e /* once per epoch */ :: else fi;
          skip
        }
        if :: first -> bell = 1 :: else fi
     fi
  fi;
  d_step { e = 0; last = 0; h = 0; t = 0; first = 0 }
}

proctype reader() {
  byte n, e, last, h, t;
  bit first;
  do
  :: n == N -> break
  :: else ->
     (tail != n && held < HOLD);
     n++;
#ifdef WISH_BEFORE_CURSOR
     e = wantsSpace;
#endif
     d_step { held++; head = n; toReturn++ }
     ringSpace()
  od
}

proctype returner() {
  byte n, e, last, h, t;
  bit first;
  do
  :: n == N -> break
  :: else ->
     (toReturn > 0);
     toReturn--;
     n++;
#ifdef WISH_BEFORE_CURSOR
     e = wantsSpace;
#endif
     returnedTail = n;
#ifndef RETURN_IN_SILENCE
     ringSpace();
#endif
     held--
  od
}

init { atomic { run sender(); run reader(); run returner() } }
