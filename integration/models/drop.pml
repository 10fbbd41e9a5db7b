/* DropOldest: claim and dropTo (docs/abi.md section 4, "Receive" and "Drop").
 *
 * writer: shmio/writer_room.go (room, refresh, dropOne, toLimbo, awaitPin), writer_push.go (Push, PushInline, publish),
 *         writer_return.go (Reclaim, returned, limbo, ReclaimAll).
 * reader: shmio/reader_receive.go (claimAndTake, take, pass), reader_return.go (Return, skip).
 *
 * Message n takes LEN(n) slots: one is a block, more are an inline record, of which each slot is written and read by
 * itself. Cursors start at 0; a wrapped cursor is the business of shmio/route_interleave_test.go. The writer looks at a
 * pinned slot once where the code looks a few times. The ring of returns never fills here: returns.pml has that.
 */
#ifndef S
#define S 2       /* slots */
#endif
#ifndef D
#define D 2       /* depth */
#endif
#ifndef OUT
#define OUT (D+1) /* blocks that may be out */
#endif
#ifndef N
#define N 4       /* messages */
#endif
#if defined(INLINE)
#define LEN(n) 2
#define MAXLEN 2
#elif defined(MIXED)
#define LEN(n) (1 + ((n)*2) % 3) /* 1, 3, 2 */
#define MAXLEN 3
#else
#define LEN(n) 1
#define MAXLEN 1
#endif
#define C (N*MAXLEN+1) /* cursors */
#define HOLD (OUT-D)

/* shared words, each with one writer */
byte ring[S], tail, dropTo;
bit joined;     /* the writer honours claims from here on; a reader waits for it, or for the writer's death */
byte head, claim, skippedTo, retTail, rets[2*N+1];

/* what really happens, for the assertions alone */
#define RING 1
#define HELD 2
#define GIVEN 3 /* on its way back */
#define BACK 4
byte state[N];  /* of blocks */
byte msgAt[C];  /* cursor -> message */
bit received[N], dropped[N], refused[N];
bit writerDone, readerDone, readerDead, writerDead;

#define block(n) (LEN(n) == 1)
#define code(n, part) (1 + (n)*4 + (part))

inline comeBack(n) {
  assert(state[n] != BACK);                /* never twice */
  assert(state[n] != HELD || readerDead);  /* never out of the reader's hands */
  state[n] = BACK
}
inline countDrop(n) { assert(!dropped[n] && !received[n]); dropped[n] = 1 }

byte wTail, published, oldest, unread, free, wHead, wDropTo, pin, outN, low, last, second, wRetHead;
bit pinned, out[C], limboBlock[C], limboInline[C];
#define BAD 0
#define SKIPPED 1
#define KNOWN 2

inline setFree(c) { if :: c > free -> free = c :: else fi }
inline pop() { oldest = oldest + LEN(msgAt[oldest]); unread-- }
inline giveBack(c) { out[c] = 0; limboBlock[c] = 0; outN--; comeBack(msgAt[c]) }

inline returned(seq) {
  was = second; second = BAD;
  if
  :: out[seq] ->
     if :: limboBlock[seq] -> last = seq; second = SKIPPED :: else fi;
     giveBack(seq)
  :: !out[seq] && was != BAD && seq == last ->
     if :: was == SKIPPED -> countDrop(msgAt[seq]) :: else fi
  :: !out[seq] && !(was != BAD && seq == last) && limboInline[seq] ->
     limboInline[seq] = 0; countDrop(msgAt[seq]); last = seq; second = KNOWN
  :: else ->
     assert(seq >= low && seq < wDropTo); /* else an honest return counts as bad */
     low = seq + 1; last = seq; second = KNOWN
  fi
}

inline reclaim() {
  d_step {
    x = retTail;
    do :: wRetHead < x -> seq = rets[wRetHead]; returned(seq); wRetHead++ :: else -> break od;
    x = 0; seq = 0; was = 0
  }
}

inline refresh() {
  d_step {
    h = (joined -> head : 0);
    assert(h <= published);
    wHead = h;
    do :: unread > 0 && h > oldest -> pop() :: else -> break od;
    if :: pinned && h > pin -> pinned = 0 :: else fi;
    if
    :: !pinned -> setFree(h); setFree(wDropTo)
    :: else
    fi;
    h = 0
  }
  reclaim()
}

inline toLimbo() {
  d_step {
    if :: block(msgAt[i]) -> limboBlock[i] = out[i] :: else -> limboInline[i] = 1 fi;
#ifdef PIN_FORGOTTEN
    setFree(after);
#else
    if :: !pinned || head > pin -> pinned = 1; pin = i; setFree(i) :: else fi
#endif
  }
  refresh();
  low = after
}

inline dropOne() {
  d_step { i = oldest; pop(); after = oldest; mine = 1 }
  if :: after > published -> published = wTail; tail = wTail :: else fi;
#if !defined(CLAIM_IGNORED) && !defined(CLAIM_LOOKED_AT_EARLY)
  if :: joined && claim > i -> mine = 0 :: else fi;
#endif
#ifdef CLAIM_LOOKED_AT_EARLY
  if :: joined && claim > i -> mine = 0 :: else fi;
  if :: mine -> d_step { if :: i != wDropTo -> low = i :: else fi; wDropTo = after; dropTo = after } :: else fi;
#else
  if
  :: mine ->
     d_step { if :: i != wDropTo -> low = i :: else fi; wDropTo = after; dropTo = after }
#ifndef CLAIM_IGNORED
     if
     :: joined && claim > i ->
#ifndef CLAIM_MEANS_SKIPPED
        if :: skippedTo > i -> skip :: else -> mine = 0 fi
#endif
     :: else
     fi
#endif
  :: else
  fi;
#endif
  if
  :: mine ->
     d_step {
       countDrop(msgAt[i]);
       if :: !pinned -> setFree(after) :: else fi;
       if :: out[i] -> giveBack(i) :: else fi;
       skip
     }
  :: else -> toLimbo()
  fi;
  i = 0; after = 0; mine = 0
}

#define fits(n) (unread < D && wTail - free + LEN(n) <= S && (!block(n) || outN < OUT))

proctype writer() {
  byte n, k, i, after, h, x, seq, was, c;
  bit mine, ok, helps;
  {
    do
    :: !joined -> joined = 1
    :: n < N ->
       ok = 1;
       if
       :: fits(n)
       :: else ->
          refresh();
          do
          :: fits(n) -> break
          :: else ->
             d_step { /* would dropping help? */
               helps = !block(n) || outN < OUT; c = oldest;
               do :: c < wTail -> if :: out[c] -> helps = 1 :: else fi; c = c + LEN(msgAt[c]) :: else -> break od;
               c = 0
             }
             if
             :: !helps -> ok = 0; break
             :: helps && pinned && wTail - free + LEN(n) > S ->
                refresh();
                if :: pinned -> ok = 0; break :: else fi
             :: helps && !(pinned && wTail - free + LEN(n) > S) && unread == 0 -> ok = 0; break
             :: helps && !(pinned && wTail - free + LEN(n) > S) && unread > 0 -> dropOne()
             fi
          od
       fi;
       helps = 0;
       if
       :: !ok -> refused[n] = 1
       :: else ->
          d_step { msgAt[wTail] = n; k = 0 }
#ifdef TAIL_BEFORE_SLOT
          published = wTail + LEN(n); tail = published;
#endif
          do :: k < LEN(n) -> ring[(wTail + k) % S] = code(n, k); k++ :: else -> break od;
          skip;
          d_step {
            k = 0;
            if :: block(n) -> out[wTail] = 1; outN++; state[n] = RING :: else fi;
            wTail = wTail + LEN(n); unread++
          }
          published = wTail;
          tail = wTail
       fi;
       n++
    :: n == N && joined -> break
    od;
    writerDone = 1;
    (readerDone || readerDead);
    reclaim();
    if
    :: readerDead -> /* ReclaimAll */
       d_step { c = 0; do :: c < C -> if :: out[c] -> giveBack(c) :: else fi; c++ :: else -> break od; c = 0 }
    :: else
    fi;
    d_step {
      assert(outN == 0);
      n = 0;
      do
      :: n < N ->
         if :: block(n) && !refused[n] -> assert(state[n] == BACK) :: else fi;
         if :: !readerDead -> assert(received[n] + dropped[n] + refused[n] == 1) :: else fi;
         n++
      :: else -> break
      od;
      n = 0
    }
  }
#ifdef WRITER_DIES
  unless { writerDead }
#endif
}

#define NONE 255
inline give(c) {
  state[msgAt[c]] = GIVEN;
  rets[retTail] = c;
  retTail = retTail + 1
}

proctype reader() {
  byte next, rTail, d, t, k, m, held = NONE, heldN;
  bit final;
  {
#ifndef READ_BEFORE_JOINED
    (joined || writerDead);
#endif
    do
    :: held != NONE -> give(held); held = NONE /* it holds one as long as it likes */
    :: held == NONE || HOLD > 1 ->
       final = writerDone || writerDead; /* before the look: what is there then is all there will be */
       if :: next == rTail -> rTail = tail :: else fi;
       if
       :: next == rTail ->
          if :: final -> break :: else -> (tail != next || writerDone || writerDead) fi
       :: else ->
#ifdef DROPTO_BEFORE_CLAIM
          d = dropTo; claim = next + 1;
#else
          claim = next + 1; d = dropTo;
#endif
          if
#ifdef DROPTO_IGNORED
          :: true ->
#else
          :: d <= next ->
#endif
             m = msgAt[next];
             assert(rTail - next <= S);
             k = 0;
             do
             :: k < LEN(m) -> assert(ring[(next + k) % S] == code(m, k)); k++
             :: else -> break
             od;
          skip;
             d_step {
               assert(!received[m] && !dropped[m]);
               received[m] = 1; k = 0;
               if
               :: block(m) ->
                  assert(state[m] == RING || writerDead);
                  state[m] = HELD
               :: else
               fi
             }
             next = next + LEN(m);
             head = next;
             if
             :: block(m) && held == NONE -> held = next - 1
             :: block(m) && held != NONE -> give(next - 1)
             :: else
             fi;
             m = 0
#ifndef DROPTO_IGNORED
          :: else ->
             t = tail;
             assert(d <= t);
#ifdef SKIP_RETURNED_ONCE
             d_step { rets[retTail] = next; retTail = retTail + 1 }
#else
             d_step { rets[retTail] = next; rets[retTail+1] = next; retTail = retTail + 2 }
#endif
             skippedTo = d;
             d_step { rTail = t; next = d; head = d; t = 0 }
#endif
          fi;
          d = 0
       fi
    od;
    if :: held != NONE -> give(held); held = NONE :: else fi;
    d_step { /* what a dead writer had published and not dropped is received */
      k = 0;
      do
      :: writerDead && k < tail -> assert(received[msgAt[k]] || k < dropTo); k = k + LEN(msgAt[k])
      :: else -> break
      od;
      k = 0
    }
    readerDone = 1
  }
#ifdef READER_DIES
  unless { readerDead }
#endif
}

#ifdef READER_DIES
proctype death() { readerDead = 1 }
#endif
#ifdef WRITER_DIES
proctype death() { writerDead = 1 }
#endif

init {
  atomic {
    run writer(); run reader();
#if defined(READER_DIES) || defined(WRITER_DIES)
    run death()
#endif
  }
}
