/* lease-log.pml - lease.pml of OWNERSHIP.md with one change: a new placement leader
 * counts from the moment its own log took the last entry of an earlier term (L), not
 * from the moment it won (te).
 *   A grant of P1 answers renewals received before an entry of P1's was proposed, and
 *   only once that entry is committed (R36).  Whoever wins a later term has every
 *   committed entry in its log.  So P2 took the entry of every grant that was or will
 *   ever be sent, and took it after the renewal was sent.
 * P2 takes an entry at the earliest moment there is, when P1 proposes it: anything
 * later makes P2 wait longer.  P1 may notice late that it was deposed: a grant whose
 * entry was committed before may leave at any time after (in lease.pml it may not).
 *
 * bounded, timed model of the read lease of one owner node N.
 * One tick = one unit of real time.  N's clock may run slow by D per lease and a
 * placement leader's clock fast by D, so a leader must wait TTL+MARGIN, MARGIN>=2D.
 *   N   sends renewals (any delay, loss); reads while its lease holds
 *   P1  placement leader, may be deposed at any tick without noticing
 *   P2  elected later; knows nothing of P1's grants
 * CHECK  N never reads under a lease once a new owner is activated.
 * RUN    spin -a [-DFLAG] lease.pml; gcc -O2 -DSAFETY -DNOREDUCE -o pan pan.c; ./pan -m10000
 * Break: -DNO_VERIFY      P1 grants without a quorum round begun after receipt
 *        -DFROM_RECEIPT   N counts from the reply's arrival, not from its send
 *        -DOLD_ENTRY      P1 grants on an entry proposed before the request came in;
 *                         P2 counts from the last entry all the same
 *        -DNO_NEW_WAIT    P2 trusts that there is no lease it does not know
 *        -DNO_MARGIN      no clock-drift margin
 *        -DSUSPEND        N's clock stops while N is suspended (CLOCK_MONOTONIC
 *                         over a VM/laptop suspend instead of CLOCK_BOOTTIME)
 *        -DREPLY_FIRST    P1 replies before it records the grant
 *        -DNODE_LEASE     lease is per node; a facet taken from a LIVE node goes
 *                         on being covered by the node's later renewals         */
#define TTL 4
#define D   1
#ifdef NO_MARGIN
#define MARGIN 0
#else
#define MARGIN 2
#endif
#ifndef T
#define T   16                  /* ticks */
#endif
#define NONE 255
byte now;                       /* real time                                 */
byte exp1;                      /* P1: N's lease is over after this          */
byte until;                     /* N: lease valid while now < until          */
byte r = NONE;                  /* newest renewal in flight (its send time)  */
byte v = NONE;                  /* renewal under P1's quorum round           */
byte g = NONE;                  /* newest grant in flight                    */
bit  deposed;                   /* P2 elected                                */
byte L;                         /* P2's log took the last entry of P1 then   */
bit  prop;                      /* v waits for an entry: proposed, P2 has it */
bit  comm;                      /* and it is committed: P1 led until then    */
bit  revoked;                   /* placement decided to move the facet       */
bit  stopped;                   /* N applied the revocation: serves no more  */
bit  live2;                     /* new owner activated: may acknowledge      */
#ifdef NODE_LEASE
#define MAYGRANT (1)
#define REC      if :: !revoked -> exp1=now+TTL+MARGIN :: else -> skip fi
#else
#define MAYGRANT (!revoked)     /* a revoked holder must first say it stopped */
#ifdef REPLY_FIRST
#define REC      skip
#else
#define REC      exp1=now+TTL+MARGIN
#endif
#endif
#ifdef NO_VERIFY
#define LEADS (1)
#else
#define LEADS (comm)            /* the entry of the round is committed       */
#endif
active proctype world() {
  d_step { until=TTL+D; exp1=TTL+MARGIN }
end: do
  :: d_step { now<T -> now++ }
  :: d_step { now<T && r!=now && !stopped -> r=now }           /* N sends    */
  :: d_step { r!=NONE && v==NONE && !live2 -> v=r }            /* P1 gets it */
#ifdef OLD_ENTRY
  :: d_step { !deposed && !prop -> prop=1; L=now }
#else
  :: d_step { v!=NONE && !deposed && !prop -> prop=1; L=now }  /* proposed   */
#endif
  :: d_step { prop && !comm && !deposed -> comm=1 }            /* committed  */
  :: d_step { v!=NONE && LEADS && MAYGRANT -> REC; g=v; v=NONE; prop=0; comm=0 }
  :: d_step { v!=NONE -> v=NONE; prop=0; comm=0 }              /* lost       */
#ifdef FROM_RECEIPT
  :: d_step { g!=NONE && now+TTL+D>until -> until=now+TTL+D; g=NONE }
#else
  :: d_step { g!=NONE && g+TTL+D>until -> until=g+TTL+D; g=NONE }
#endif
  :: d_step { g!=NONE -> g=NONE }                              /* lost       */
#ifdef SUSPEND
  :: d_step { now<until && now<T-3 -> now=now+3; until=until+3 }
#endif
  :: d_step { !deposed && now<T -> deposed=1 }
  :: d_step { !revoked -> revoked=1 }
  :: d_step { revoked && !stopped -> stopped=1 }
  /* activation, by the leader that really leads (placement entry commits) */
  :: d_step { revoked && !live2 && !deposed && (now>=exp1-D || stopped) -> live2=1 }
#ifdef NO_NEW_WAIT
  :: d_step { revoked && !live2 && deposed -> live2=1 }
#else
  :: d_step { revoked && !live2 && deposed && (now>=L+TTL+MARGIN-D || stopped) -> live2=1 }
#endif
  :: d_step { now<until && !stopped && live2 -> assert(0) }    /* stale read */
  od }
