/* The bell of a reader that sleeps (docs/abi.md section 4, "Sleep" and "Joining").
 *
 * writer: shmio/writer_push.go (publish, Commit), writer.go (Join). bell: shmio/bell.go (Ring), bedside.go (sleep).
 * reader: shmio/reader_receive.go (load, Arm, Disarm, hasNews), inbox.go (cool, heat), inbox_park.go.
 *
 * The pipe holds one ring: one more finds it ringing already. A sleeper empties it before it disarms. There is no
 * backstop here (Inbox.Backstop): a wake-up that is lost is a reader that waits for ever, an invalid end state.
 */
#ifndef N
#define N 4 /* messages */
#endif
#define MAXARMS (2*N+4)

/* shared words, each with one writer */
byte slot[N], tail, armed;
bit joined;
bit pipe;

byte rings[MAXARMS]; /* per epoch, for the assertion alone */

inline ring(e) {
  d_step { rings[e]++; assert(rings[e] == 1) } /* at most once per sleep */
  pipe = 1
}

inline commit() {
  if
  :: joined ->
#ifndef ARMED_BEFORE_TAIL
     e = armed;
#endif
     if
     :: e != 0 && e != rungFor -> rungFor = e; ring(e)
     :: else
     fi
  :: else /* nobody is known to be rung for */
  fi;
  e = 0
}

proctype writer() {
  byte staged, published, e, rungFor;
  do
  :: staged < N ->
#ifdef TAIL_BEFORE_SLOT
     if
     :: tail = staged + 1; published = staged + 1; slot[staged] = staged + 1; staged++; commit()
     fi
#else
     slot[staged] = staged + 1;
     staged++
#endif
  :: staged > published || (staged == N && !joined) -> /* one commit for as many as there are */
     if
     :: staged > published ->
#ifdef ARMED_BEFORE_TAIL
        e = armed;
#endif
        published = staged; tail = staged;
        commit()
     :: !joined ->
        joined = 1;
#ifndef JOIN_IN_SILENCE
        commit()
#endif
     fi
  :: staged == published && staged < N && !joined ->
     joined = 1;
#ifndef JOIN_IN_SILENCE
     commit()
#endif
  :: staged == N && published == N && joined -> break
  od
}

proctype reader() {
  byte next, t, arms;
  do
  :: next == N -> break
  :: else ->
     t = 0;
     if :: joined -> t = tail :: else fi;
     do
     :: t > next -> assert(slot[next] == next + 1); next++
     :: else -> break
     od;
     if
     :: next == N
     :: else ->
        /* now and then it polls again, else it goes to sleep */
        if
        :: true
        :: true ->
#ifdef ARMED_AFTER_THE_LOOK
           t = (joined -> tail : 0);
           arms++; armed = arms;
#else
#ifdef SAME_EPOCH
           arms = 1;
#else
           arms++;
#endif
           armed = arms;
#ifdef EMPTIED_AFTER_ARMING
           pipe = 0;
#endif
           if :: joined -> t = tail :: else t = 0 fi; /* the look that comes after */
#endif
           if
           :: t > next
           :: else -> pipe == 1; pipe = 0
           fi;
           armed = 0
        fi
     fi
  od
}

init { atomic { run writer(); run reader() } }
