/* Blocks: references, the table of what is out, the ring of returns, and a reader's death (docs/abi.md section 4,
 * "Return").
 *
 * publisher, housekeeper and deathWatch, goroutines of the sender's process, with the lock of each route: node/block.go
 *   (fill, unref), node/route_push.go (push, stage, reclaim), node/route_out.go (reclaimRoutes, end), node/peer.go
 *   (peerDied), shmio/writer_return.go (Reclaim, returned, ReclaimAll), route_table.go.
 * readers, a process each: shmio/reader_return.go (giveBack, putReturn).
 *
 * Each message goes to two routes. The reader of route 0 is honest: while it holds a block nobody may fill that anew. The
 * reader of route 1 is not: it returns what it has got again, keeps what it has got, and returns what
 * it never had. With HOSTILE its cursor jumps, too. It dies at any step.
 */
#ifndef N
#define N 2   /* messages */
#endif
#ifndef BLOCKS
#define BLOCKS 1
#endif
#define RS 2  /* entries of a ring of returns */
#define OUT 1 /* blocks of a route that may be out */
#ifndef LIES
#define LIES 2 /* returns of the dishonest reader */
#endif

/* shared words, each with one writer */
typedef Route {
  byte slot[N];        /* writer half: the ring, which never fills here */
  byte tail;
  byte returnedHead;
  byte returns[RS];    /* reader half */
  byte returnedTail
}
Route route[2];

/* words of the sender's process */
typedef End {
  bit lock, over, ended; /* ended: dead, or its half is rubbish */
  byte table[N];       /* seq -> block + 1 */
  byte out;
  byte retHead
}
End end[2];
byte refs[BLOCKS];
bit free[BLOCKS];

/* what really happens, for the assertions alone */
byte held[BLOCKS];     /* by the honest reader */
bit done, dead;

#ifdef WITHOUT_LOCK
#define LOCK(r) skip
#define UNLOCK(r) skip
#else
#define LOCK(r) atomic { !end[r].lock -> end[r].lock = 1 }
#define UNLOCK(r) end[r].lock = 0
#endif

inline unref(b) {
  assert(refs[b] > 0);
  refs[b]--;
  if :: refs[b] == 0 -> assert(!free[b] && held[b] == 0); free[b] = 1 :: else fi
}

/* Reclaim: believe only the table. One step under the lock, as it loads returnedTail once, and an entry before it is not
 * written again before returnedHead has passed it; what a hostile reader writes it may have written before. */
inline take(r) {
  seq = route[r].returns[end[r].retHead % RS];
  if
#ifdef RETURN_BELIEVED
  :: seq < route[r].tail -> b = route[r].slot[seq]; end[r].table[seq] = 0; end[r].out = (end[r].out > 0 -> end[r].out - 1 : 0); unref(b)
#else
  :: seq < N && end[r].table[seq] != 0 ->
     b = end[r].table[seq] - 1;
#ifndef ENTRY_KEPT
     end[r].table[seq] = 0;
#endif
     end[r].out--;
     unref(b)
#endif
  :: else /* ignored and counted */
  fi;
  end[r].retHead++
}

inline reclaim(r) {
#ifdef WITHOUT_LOCK
  t = route[r].returnedTail;
  do
  :: end[r].retHead < t -> take(r)
  :: else -> break
  od;
#else
  d_step {
    t = route[r].returnedTail;
    if
    :: !end[r].ended && (t < end[r].retHead || t - end[r].retHead > RS) ->
       assert(r == 1); /* the honest one is never taken for corrupt */
       end[r].ended = 1; end[r].over = 1
    :: else
    fi;
    do
    :: !end[r].ended && end[r].retHead < t -> take(r)
    :: else -> break
    od;
    t = 0; seq = 0; b = 0
  }
#endif
  route[r].returnedHead = end[r].retHead
}

proctype publisher() {
  byte n, r, m, t, seq, b;
  do
  :: n == N -> break
  :: else ->
     /* a loan: from the magazine, or what was returned meanwhile */
     do
     :: free[0] -> m = 0; break
#if BLOCKS > 1
     :: free[1] -> m = 1; break
#endif
     :: else -> (free[0] || (BLOCKS > 1 && free[BLOCKS-1]))
     od;
     skip;
     d_step { free[m] = 0; refs[m] = 1 }
     assert(held[m] == 0); /* it is filled */
     do
     :: r < 2 ->
        LOCK(r);
        reclaim(r);
        if
#ifdef PUSH_AFTER_DEATH
        :: end[r].out < OUT ->
#else
        :: !end[r].over && end[r].out < OUT ->
#endif
           d_step {
#ifndef REFERENCE_AFTER_PUSH
             refs[m]++;
#endif
             end[r].table[route[r].tail] = m + 1; end[r].out++; route[r].slot[route[r].tail] = m }
           route[r].tail = route[r].tail + 1;
#ifdef REFERENCE_AFTER_PUSH
           UNLOCK(r);
           refs[m]++
#else
           UNLOCK(r)
#endif
        :: else -> UNLOCK(r) /* DropNewest */
        fi;
        r++
     :: else -> break
     od;
     skip;
     d_step { unref(m); n++; r = 0; m = 0 }
  od;
  done = 1
}

proctype housekeeper() {
  byte r, t, seq, b;
  do
  :: r = 0; LOCK(0); reclaim(r); UNLOCK(0);
     r = 1; LOCK(1); reclaim(r); UNLOCK(1);
end_idle:
     (route[0].returnedTail != route[0].returnedHead || (route[1].returnedTail != route[1].returnedHead && !end[1].ended))
  od
}

proctype deathWatch() {
  byte seq, b;
  dead;
  LOCK(1);
  end[1].over = 1;
#ifdef PUSH_AFTER_DEATH
  skip;
#else
  end[1].ended = 1;
#endif
  d_step { /* ReclaimAll */
    do
    :: seq < N ->
       if
       :: end[1].table[seq] != 0 ->
          b = end[1].table[seq] - 1;
#ifndef RECLAIMED_TWICE
          end[1].table[seq] = 0;
#endif
          end[1].out--;
          unref(b)
       :: else
       fi;
       seq++
    :: else -> break
    od;
    seq = 0; b = 0
  }
  UNLOCK(1);
#ifdef RECLAIMED_TWICE
  seq = 0;
  do
  :: seq < N ->
     if :: end[1].table[seq] != 0 -> b = end[1].table[seq] - 1; d_step { unref(b); skip } :: else fi;
     seq++
  :: else -> break
  od;
#endif
  /* in the end everything is here again, once */
  (done && free[0] && (BLOCKS == 1 || free[BLOCKS-1]));
  assert(end[0].out == 0 && end[1].out == 0 && refs[0] == 0)
}

inline giveBack(r, seq) {
#ifdef CURSOR_BEFORE_ENTRY
  route[r].returnedTail = retTail + 1;
  d_step { route[r].returns[retTail % RS] = seq; retTail++ }
#else
#ifndef RING_OVERWRITTEN
  (retTail - route[r].returnedHead < RS);
#endif
  d_step { /* the entry is nobody's business until returnedTail says so */
    route[r].returns[retTail % RS] = seq;
    retTail++;
    route[r].returnedTail = retTail
  }
#endif
}

proctype honest() {
  byte next, b, retTail;
end_read:
  do
  :: route[0].tail > next ->
     d_step { b = route[0].slot[next]; assert(refs[b] > 0 && !free[b]); held[b]++ }
     d_step { held[b]--; b = 0 } /* it is read up to here */
     giveBack(0, next);
#ifndef HOSTILE
     if
     :: giveBack(0, next) /* twice: what DropOldest does with what it skips */
     :: true
     fi;
#endif
     next++
  od
}

proctype dishonest() {
  byte retTail;
  {
    do
    :: retTail < LIES -> giveBack(1, 0) /* whether it has got it or not */
    :: retTail < LIES -> giveBack(1, N - 1)
#ifdef HOSTILE
    :: route[1].returnedTail == 0 -> route[1].returnedTail = RS + 1 /* beyond the ring */
    :: retTail > 0 -> route[1].returnedTail = 0 /* behind what was taken */
#endif
    od
  } unless { dead }
}

proctype death() { dead = 1 }

init {
  d_step { free[0] = 1; free[BLOCKS-1] = 1 }
  atomic { run publisher(); run housekeeper(); run deathWatch(); run honest(); run dishonest(); run death() }
}
