/* How a route ends, and when the memory of its halves is used for another (docs/abi.md section 4, "End", and section 6,
 * "Routes"; docs/decisions/0022-how-a-route-ends.md).
 *
 * writer: a node that sends: node/route_out.go (openOut, join, end, mayFree, reclaimRoutes, free), peer_death.go (peerDied);
 *   shmio/writer.go (Join, End, ReaderLeft, readerClosed, Close), writer_room.go (refresh), writer_return.go (Reclaim).
 * reader: a node that receives, its receiver, socket and housekeeper in turns: node/route_in.go (openIn, join, end, endTold,
 *   drained, allSent, abandon), route_leave.go (giveUp, refuse, leave, reap, letGo), peer_death.go (onPeerGone, forgetPeer);
 *   shmio/reader.go (Leave, Close), reader_receive.go (ready), reader_return.go, reader_stats.go (WriterOver, WriterClosed).
 * readerWatch: the same node's watch of the writer's pidfd: node/peer_death.go (peerDied, askAbout).
 * center: actors/sessionroutes.go (onRouteHalf, peerHalf), sessionrouteend.go (closeRoute, peerOver, onNodeClosesRoute), center.go
 *   (peerOver, tellOver). What it has put on a socket stays there in its order; what a process has said before its death is heard.
 *
 * The memory of a half that is free is cut for another route at once: where this route's words say OURS, that one's say OTHER,
 * and its cursors are further than this one's ever come. Messages are blocks, of which one is held at a time; policies and
 * a full queue are drop.pml's and space.pml's. A process that closes its node is to its peers one that has died.
 * The 10 s that a reader waits for what nobody is left to tell are Spin's timeout: nothing else can happen. Those of a writer may
 * pass at any time, for a reader that is stopped hears nothing meanwhile.
 *
 * ABANDONS: the reader closes its subscription. REFUSES: it can't use the writer's half, and gives the route up.
 */
#ifndef N
#define N 2 /* messages */
#endif
#define OURS 1
#define OTHER 2

mtype = { OPEN, PEER, CLOSE, DEAD, GONE, HALF, CUT, ASK };
chan toW = [5] of { mtype };   /* RouteOpen, RoutePeer, RouteClose with and without peer_alive, PeerGone */
chan toR = [6] of { mtype };
chan fromW = [3] of { mtype }; /* RouteHalf, RouteClose, PeerGone */
chan fromR = [4] of { mtype };

/* the halves: words that the other end reads, each with one writer */
byte wId, tail, slot[N], over, joined;
byte rId, head, returned, left;

/* of the kernel: the process has died, and its pidfd tells so some time later */
bit deadW, deadR;

/* for the assertions alone (pushed is the writer's own, too) */
byte pushed, got, gaveBack, held;
bit wTold;     /* its half is on the socket: somebody will know where it is */
bit excused;   /* what was sent need not come: nobody wants it, or an end can't be had */
bit pUnmapped; /* the reader's process has forgotten the writer's, and the memory */

/* of the writer's process: the route in Node.out, and the pidfd of its peer */
bit wOpen, wKnown, wOver, wLost, wHk, wPid;

/* of the reader's process */
bit rOpen, rForgotten; /* the route is in Node.in: is made, is deleted from there */
bit known, inbox, reading, ending, gone, told, done, freed, isLeft, dead, rHk;
bit pKnown, pDead, pSettled, pPid; /* the peer */
bit mu, inMu;
byte next;

/* ---- the writer's process ---- */

inline push() {
  assert(!done || excused);
  slot[pushed] = OURS;
  pushed++; tail = pushed
}
inline wEnd() { /* outRoute.end, Writer.End: what is staged is published before over */
  wOver = 1; over = OURS; wHk = 1;
#ifdef OVER_BEFORE_TAIL
  true;
  if :: wOpen && pushed < N -> push() :: else fi
#endif
}

/* What the half of the reader says is believed if it is the route's still. */
inline wLook() {
  atomic { h = head; t = returned };
  atomic {
    if
#ifndef READ_UNASKED
    :: rId != OURS -> wEnd()
    :: else ->
#else
    :: true ->
#endif
       assert(h <= got && t <= gaveBack)
    fi;
    h = 0; t = 0
  }
}

/* All comes back (ReclaimAll), and the half is cut for another route. */
inline wFree() {
  atomic {
    assert(deadR || held == 0 && (isLeft || freed || !wKnown));
#ifndef SAME_IDENTITY
    wId = 0
#endif
  };
  d_step {
    slot[0] = OTHER; slot[N-1] = OTHER; tail = N;
#ifdef SAME_IDENTITY
    joined = OURS; over = OURS
#else
    wId = OTHER; joined = OTHER; over = OTHER
#endif
  };
  break
}

/* What nobody looks at any more is forgotten: fewer states. */
inline wForget() {
  do :: nempty(toW) -> toW?_ :: empty(toW) -> break od;
  wOpen = 0; wKnown = 0; wOver = 0; wLost = 0; wHk = 0; wPid = 0
}

proctype writer() {
  byte h, t;
  bit looked;
  {
    do
    :: atomic { toW?[OPEN] -> toW?OPEN; wId = OURS; wOpen = 1 }
    :: atomic { wOpen && !wTold -> fromW!HALF; wTold = 1 } /* tellHalf: the next frame comes after it */
    :: atomic { wTold && toW?[PEER] ->
       toW?PEER;
       if
       :: rId == OURS -> wKnown = 1; joined = OURS; wPid = 1
       :: else -> excused = 1; wLost = 1; wEnd(); fromW!CUT
       fi }
    :: atomic { wTold && toW?[CLOSE] -> toW?CLOSE; wEnd() }
    :: atomic { wTold && toW?[DEAD] -> toW?DEAD; wEnd() }; wFree()
    :: atomic { wOpen && wPid && deadR -> wEnd() }; wFree() /* peerDied */
    :: atomic { wOpen && !wOver && pushed < N -> /* also before its half is told, and before it knows the other */
       push() }
    :: wKnown && !wOver && !looked -> looked = 1; wLook() /* once, at any time, and at the end */
    :: wHk && !wOver -> wHk = 0 /* nothing to be done: it sleeps */
    :: wHk && wOver && wKnown && left == OURS -> wLook(); wFree()
#ifndef REFUSAL_UNHEARD
    :: wHk && wOver && wKnown && rId != OURS -> wFree()
#endif
#ifdef FREED_WHEN_EMPTY
    :: wHk && wOver && wKnown && head == pushed && returned == pushed -> wFree()
#endif
    :: wHk && wOver && !wKnown && (pushed == 0 || wLost) -> wFree() /* 10 s have passed */
    od;
    atomic { looked = 0; wForget() }
  } unless { atomic { deadW -> d_step { looked = 0; h = 0; t = 0; wForget() } } }
}

/* ---- the reader's process ---- */
#ifdef LET_GO_UNSEEN
#define letGo false
#else
#define letGo (wId != OURS) /* Reader.WriterClosed */
#endif
#define mapped assert(!pUnmapped)

/* Nothing more is received. mu is held. */
inline finish() {
  !inMu; inbox = 0;
  assert(excused || !wTold || got == pushed);
  done = 1; rHk = 1
}

inline drained() {
  atomic {
    !mu;
    mu = 1; look = 0;
    if
    :: freed
    :: !freed && !known -> e = (ending && !done && told)
    :: else ->
       mapped;
       if
       :: done || !ending
       :: !done && ending && letGo -> e = 1
       :: else ->
          look = 1;
#ifdef TAIL_BEFORE_OVER
          u = (tail != next)
#elif defined(OVER_NOT_ASKED)
          e = 1
#else
          e = (gone || over == OURS || wId != OURS)
#endif
       fi
    fi
  };
  atomic {
    if
    :: look ->
       mapped;
#ifdef TAIL_BEFORE_OVER
       e = (gone || over == OURS || wId != OURS)
#else
       u = (tail != next)
#endif
    :: else
    fi;
    if :: e && !u -> finish() :: else fi;
    e = 0; u = 0; look = 0; mu = 0
  }
}

/* end(gone), endTold(gone) */
inline end(isGone, isTold) {
  atomic {
    told = told | isTold; ending = 1;
    !mu;
    if
    :: freed
    :: else -> gone = gone | isGone; dead = dead | isGone;
#ifndef END_NOT_POKED
       rHk = 1
#endif
    fi
  };
  drained()
}

/* take is Reader.TryReceive: ready, load, take, pass. */
#ifdef DEAD_READ_UNASKED
#define ready (reading || dead || joined == OURS)
#else
#define ready (reading || dead && wId == OURS || joined == OURS)
#endif
#define unread (known && !isLeft && ready && tail != next)
inline take() {
  mapped;
  assert(slot[next] == OURS);
  got++; held++; next++;
  head = next
}

#ifdef LEFT_WHILE_HELD
#define nothingHeld true
#else
#define nothingHeld (held == 0)
#endif

inline forgetPeer() {
  if :: pSettled && (!rOpen || rForgotten) -> pKnown = 0; pUnmapped = 1 :: else fi
}

proctype reader() {
  bit look, e, u;
  {
    do
    :: atomic { inbox && unread && held < 1 -> inMu = 1; reading = 1 };
       atomic { if :: inbox -> take() :: else fi; inMu = 0 };
       if :: ending -> drained() :: else fi
    :: atomic { held > 0 && !mu -> if :: isLeft || dead :: else -> gaveBack++; returned++ fi; held-- }
#ifdef ABANDONS
    :: atomic { rOpen && !ending && !done && !mu -> /* Subscription.Close: abandon */
       excused = 1; ending = 1;
       finish();
       fromR!CUT }
#endif
    /* the socket */
    :: atomic { toR?OPEN -> pKnown = 1; rId = OURS; rOpen = 1; fromR!HALF }
    :: atomic { toR?PEER ->
       if
       :: !pKnown /* nobody to be told of */
       :: pKnown ->
          pPid = 1;
          !mu;
          if
          :: freed || known
          :: else ->
             if
             :: wId == OURS ->
                known = 1; dead = dead | pDead;
                if :: done -> rHk = 1 :: else -> inbox = 1 fi
#ifdef REFUSES
             :: true -> excused = 1; end(1, 1); fromR!CUT
#endif
             :: wId != OURS -> end(1, 1); fromR!CUT
             fi
          fi
       fi }
    :: toR?CLOSE -> if :: rForgotten :: else -> end(0, 0) fi
    :: toR?DEAD -> if :: rForgotten :: else -> end(1, 1) fi
    :: toR?GONE ->
       if
       :: !pKnown
       :: else ->
          atomic { pDead = 1; pSettled = 1 };
          if :: rForgotten || !rOpen :: else -> end(1, 1) fi;
          atomic { forgetPeer() }
       fi
    /* The housekeeper. What it looks for again and again is what it waits for here. */
    :: rHk && ending && !done && (!known && told || known && tail == next && (gone || over == OURS) || known && letGo) ->
       drained()
    :: atomic { timeout && rHk && ending && !done && !known && !mu -> finish() } /* 10 s have passed */
    :: atomic { done && !gone && !freed && wId == OURS && unread && held < 1 && !mu -> reading = 1; take() } /* refuse */
    :: atomic { done && !gone && !freed && known && !isLeft && over == OURS && nothingHeld && !mu -> /* leave */
       if
       :: unread
       :: else ->
          isLeft = 1;
#ifndef LEFT_NOT_TOLD
          left = OURS
#endif
       fi }
    :: atomic { rHk && !ending && !done -> rHk = 0 } /* nothing to be done: it sleeps */
    :: rHk && done && held == 0 && !freed && (gone || pDead || known && wId != OURS || !known && timeout) -> break
#ifdef FREED_UNASKED
    :: rHk && done && held == 0 && !freed && isLeft -> break
#endif
    od;
    /* reap */
#ifdef FORGOTTEN_BEFORE_FREED
    atomic { rForgotten = 1; forgetPeer() }; /* the goroutine of the socket does it */
#endif
    atomic { !mu; freed = 1; assert(deadW || excused || !known || wId != OURS); rId = 0 };
    atomic { rForgotten = 1; forgetPeer() };
    d_step {
      do :: nempty(toR) -> toR?_ :: empty(toR) -> break od;
      rId = OTHER; head = N + 1; returned = N + 1; left = OTHER;
      known = 0; reading = 0; ending = 0; told = 0; dead = 0; rHk = 0; next = 0
    }
  } unless { atomic { deadR -> d_step {
    do :: nempty(toR) -> toR?_ :: empty(toR) -> break od;
    look = 0; e = 0; u = 0; mu = 0; inMu = 0; held = 0; next = 0; left = 0; returned = 0;
    known = 0; inbox = 0; reading = 0; ending = 0; gone = 0; told = 0; done = 0; freed = 0; isLeft = 0; dead = 0; rHk = 0;
    rOpen = 0; rForgotten = 0; pKnown = 0; pDead = 0; pSettled = 0; pPid = 0; pUnmapped = 0
  } } }
}

proctype readerWatch() {
  bit look, e, u;
  {
end_watch:
    do
    :: atomic { pPid && deadW && !pDead -> pDead = 1 }; break
    od;
    if
    :: rOpen && !rForgotten ->
#ifdef FORGOTTEN_AT_PIDFD
       end(1, 1); atomic { pSettled = 1; forgetPeer() }
#else
       end(1, 0)
#endif
    :: else
    fi;
    fromR!ASK
  } unless { atomic { deadR -> look = 0; e = 0; u = 0 } }
}

/* ---- the center ---- */
inline closing() {
  if
  :: !closed ->
     closed = 1;
     asked = asked | (!wTells || !rTells); /* askOver */
     if :: !wGone -> toW!CLOSE :: else fi;
     if :: !rGone -> toR!CLOSE :: else fi
  :: else
  fi
}

#ifdef CLOSED_BEFORE_INTRODUCED
#define introduced(other) (!other && !closed)
#else
#define introduced(other) (!other)
#endif

#ifdef DEATH_LEFT_TO_PIDFD
#define tellsDeath false
#else
#define tellsDeath (!closed || !wTells || !rTells) /* else the pidfds tell of it */
#endif

proctype center() {
  bit closed, wGone, rGone, asked, wTells, rTells;
  atomic { toW!OPEN; toR!OPEN };
end_center:
  do
  :: atomic { fromW?HALF -> wTells = 1; if :: introduced(rGone) -> toR!PEER :: else fi }
  :: atomic { fromR?HALF -> rTells = 1; if :: introduced(wGone) -> toW!PEER :: else fi }
  :: atomic { fromW?CUT -> closing() }
  :: atomic { fromR?CUT -> closing() }
  :: atomic { !closed -> closing() } /* nobody publishes there any more, or nobody subscribes */
#ifdef GONE_AHEAD
  :: atomic { deadW && !wGone ->
#else
  :: atomic { deadW && !wGone && empty(fromW) ->
#endif
     wGone = 1;
     if :: tellsDeath -> toR!DEAD :: else fi;
     closed = 1;
     if :: asked -> toR!GONE :: else fi }
  :: atomic { deadR && !rGone && empty(fromR) ->
     rGone = 1;
     if :: tellsDeath -> toW!DEAD :: else fi;
     closed = 1 }
#ifdef ASK_FORGOTTEN
  :: atomic { fromR?ASK -> if :: wGone -> toR!GONE :: else fi }
#else
  :: atomic { fromR?ASK -> asked = 1; if :: wGone -> toR!GONE :: else fi }
#endif
  od
}

proctype fate() { /* if both die nothing is left to be asked */
  if :: deadW = 1 :: deadR = 1 :: skip fi
}

init { atomic {
#if !defined(ABANDONS) && !defined(REFUSES)
  if :: pKnown = 1; pPid = 1; wPid = 1 :: skip fi; /* they have another route */
#endif
  run writer(); run reader(); run readerWatch(); run center(); run fate()
} }
