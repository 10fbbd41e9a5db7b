/* The end of a route at its reader: a sender that dies, or says that it ends, is read to the end, and only then is the
 * memory let go (docs/abi.md section 4, "Joining"; ARCHITECTURE.md, "Death").
 *
 * sender: a process that may die at any step: shmio/writer_push.go (publish), writer.go (Join).
 * deathWatch and receiver, goroutines of the reader's process: node/peer.go (peerDied), node/route_in.go (end, drained),
 *   shmio/reader.go (SetPeerDead), reader_receive.go (ready, load), inbox.go (Wake, Remove), node/subscription.go.
 *
 * What is published is either received or the receiver waits for ever, an invalid end state, as is a route that is
 * never let go.
 */
#ifndef N
#define N 3 /* messages */
#endif

/* shared words, each with one writer */
byte slot[N], tail, head;
bit joined;

/* of the kernel: the process has died, and its pidfd tells so some time later */
bit gone;

/* words of the reader's process */
bit dead, ending, over, inbox = 1, woken;

byte got; /* for the assertions alone */

proctype sender() {
  byte n;
  {
    do
    :: !joined -> joined = 1
    :: n < N -> slot[n] = n + 1; n++; tail = n
    :: n == N && joined -> break
    od;
    false /* it lives until it dies */
  } unless { gone }
}
proctype death() { gone = 1 }

/* drained lets go of a route that has ended and is empty. */
inline drained(unread, e) {
#ifdef UNREAD_BEFORE_ENDING
  unread = (tail != head);
  e = ending;
#else
  e = ending;
  unread = (tail != head);
#endif
  if
  :: e && !unread && !over ->
     atomic { inbox -> inbox = 0 } /* Remove takes the inbox's lock: nobody looks at the route any more */
     assert(got == tail);
     over = 1
  :: else
  fi
}

bit drainLock;

proctype deathWatch() {
  bit unread, e;
#ifdef DEAD_BEFORE_GONE
  skip;
#else
  gone;
#endif
  dead = 1;
#ifdef FREED_AT_DEATH
  inbox = 0; over = 1;
#else
#ifndef WOKEN_BEFORE_ENDING
  ending = 1;
#endif
  woken = 1;
  atomic { !drainLock -> drainLock = 1 }
  drained(unread, e);
  drainLock = 0;
#ifdef WOKEN_BEFORE_ENDING
  ending = 1;
#endif
#endif
  over;
  assert(got == tail) /* all that was published has been received */
}

proctype receiver() {
  byte next, t;
  bit unread, e, ready;
end_wait:
  do
  :: over -> break
  :: !over ->
     /* ready: the sender honours claims, or writes no more */
#ifdef DEAD_NOT_LOOKED_AT
     ready = joined;
#else
     ready = (dead || joined);
#endif
     t = (ready -> tail : next);
     if
     :: t != next ->
        atomic {
          if :: inbox -> assert(slot[next] == next + 1); got++; next++; head = next :: else fi
        }
#ifdef ENDING_BEFORE_TAKING
        skip
#else
        atomic { !drainLock -> drainLock = 1 }
        drained(unread, e);
        drainLock = 0
#endif
     :: else -> /* asleep, bell.pml; the death of the sender wakes it too */
        (over || woken || (joined && tail != next));
        if :: woken -> woken = 0 :: else fi
     fi
  od
}

init { atomic { run sender(); run death(); run deathWatch(); run receiver() } }
