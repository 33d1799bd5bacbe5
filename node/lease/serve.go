package lease

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/node/peer"
)

// Server serves what other nodes ask of the placement leader: it is the
// peer.Placement of a node. Renewals go to Grants, commands that need a judgement
// to its court, all others into the log.
type Server struct {
	grants *Grants
	accept func(ctx context.Context, from cluster.NodeID, commands [][]byte) ([][]byte, error)
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool // guarded by mu; nothing is added to wg any more

	accepts atomic.Int32
}

// NewServer makes a Server. Accept is consensus.Node.Accept.
func NewServer(grants *Grants, accept func(ctx context.Context, from cluster.NodeID, commands [][]byte) ([][]byte, error)) *Server {
	s := &Server{grants: grants, accept: accept}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends what is under way and waits for it. The transport is closed before.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	return nil
}

// Renew implements peer.Placement.
func (s *Server) Renew(from *peer.Caller, r peer.RenewRequest, reply func(peer.Grant, error)) {
	s.grants.RenewFunc(from.Remote().Node, from.Remote().Boot, r, reply)
}

// Propose implements peer.Placement. Each judged command is answered by itself;
// the others are one entry, as package consensus forwards them.
func (s *Server) Propose(from *peer.Caller, commands [][]byte, reply func(i int, result []byte, err error)) {
	s.propose(from.Remote().Node, commands, reply)
}

func (s *Server) propose(from cluster.NodeID, commands [][]byte, reply func(i int, result []byte, err error)) {
	var plain, tried []int
	for i, c := range commands {
		if Judged(c) {
			tried = append(tried, i)
		} else {
			plain = append(plain, i)
		}
	}
	if len(tried) > 0 {
		ctx, cancel := context.WithTimeout(s.ctx, ServeWait)
		var left atomic.Int32
		left.Store(int32(len(tried)) + 1)
		answered := func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		}
		defer answered()
		for _, i := range tried {
			s.grants.JudgeFunc(ctx, commands[i], func(result []byte, err error) {
				reply(i, result, peerError(err))
				answered()
			})
		}
	}
	if len(plain) > 0 && !s.begin(func() { s.propel(from, plain, commands, reply) }) {
		for _, i := range plain {
			reply(i, nil, peer.ErrBusy)
		}
	}
}

// begin runs f in a goroutine of the server, unless there are too many.
func (s *Server) begin(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.accepts.Load() >= maxAccepts {
		return false
	}
	s.accepts.Add(1)
	s.wg.Go(func() {
		defer s.accepts.Add(-1)
		f()
	})
	return true
}

// propel brings the plain commands of a message into the log.
func (s *Server) propel(from cluster.NodeID, plain []int, commands [][]byte, reply func(i int, result []byte, err error)) {
	list := make([][]byte, len(plain))
	for k, i := range plain {
		list[k] = commands[i]
	}
	results, err := s.accept(s.ctx, from, list)
	if err == nil && len(results) != len(list) {
		err = errors.New("a result for each command is missing")
	}
	for k, i := range plain {
		if err != nil {
			reply(i, nil, peerError(err))
		} else {
			reply(i, results[k], nil)
		}
	}
}
