package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
)

// nodes is whom the client can ask: the endpoints it was given, the owners that
// redirects named, and the nodes the cluster told about. All are behind one
// bound; endpoints are never forgotten.
type nodes struct {
	mu   sync.Mutex
	byAt map[endpoint]*node // guarded by mu
	ring []*node            // guarded by mu; the same, in the order they were learned

	asking bool      // guarded by mu; a survey is under way
	asked  time.Time // guarded by mu; when the last began
}

// add finds or makes the node at an address; nil when there is no room for it.
func (s *nodes) add(c *Client, at endpoint) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byAt[at]
	if n == nil {
		if len(s.ring) >= maxNodes && !s.forget() {
			return nil
		}
		n = newNode(c, at)
		s.byAt[at] = n
		s.ring = append(s.ring, n)
	}
	n.used.Store(time.Now().UnixNano())
	return n
}

// forget drops the learned node that was named longest ago and is idle. s.mu is
// held.
func (s *nodes) forget() bool {
	oldest := -1
	for i, n := range s.ring {
		if !n.given && n.idle() && (oldest < 0 || n.used.Load() < s.ring[oldest].used.Load()) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	n := s.ring[oldest]
	s.ring = append(s.ring[:oldest:oldest], s.ring[oldest+1:]...)
	delete(s.byAt, n.at)
	n.close()
	return true
}

// after is the node to ask when n is of no use now: the next one that is not known
// to be unreachable, or just the next one.
func (s *nodes) after(n *node) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := 0
	for i, m := range s.ring {
		if m == n {
			at = i
		}
	}
	for i := range s.ring {
		if m := s.ring[(at+1+i)%len(s.ring)]; m != n && !m.down.Load() {
			return m
		}
	}
	if !n.down.Load() {
		return n
	}
	return s.ring[(at+1)%len(s.ring)]
}

// nodeAt finds or makes the node at an address a redirect named.
func (c *Client) nodeAt(addr string) (*node, error) {
	at, err := parseEndpoint(addr)
	if err != nil {
		return nil, err
	}
	// An owner without a scheme is reached the way the endpoints are.
	if addr == at.host {
		at.tls = c.endpoints[0].at.tls
	}
	if c.private && !at.tls {
		return nil, inTheClear(at.String())
	}
	n := c.nodes.add(c, at)
	if n == nil {
		return nil, facet.Errorf(facet.CodeOverloaded, "%d nodes are in use at once, which is the limit", maxNodes)
	}
	return n, nil
}

// follow learns from a redirect that n gave, and says where to go. straight means
// at once: the way is new, or n's view is behind what is known. Otherwise views
// contradict each other, and a pause comes first: the owner best known denies it,
// or cannot be reached. doubt means that next was named against what is known.
func (c *Client) follow(name facet.Name, n *node, e *facet.Error) (next *node, straight, doubt bool, err error) {
	named, err := c.nodeAt(e.Owner)
	if err != nil {
		return nil, false, false, fmt.Errorf("follow redirect: %w", err)
	}
	best := c.owners.learn(name, named, e.Epoch)
	if best != n && !best.down.Load() {
		return best, true, false, nil
	}
	if best != n {
		best.probe()
	}
	if named != best && named != n {
		return named, false, true, nil
	}
	return c.nodes.after(n), false, false, nil
}

// elsewhere chooses the node of the next try after one that brought no redirect:
// the same when it answered, another when it could not be reached, is leaving, or
// lost the facet before the answer was certain.
func (c *Client) elsewhere(name facet.Name, n *node, st stage, code facet.Code) *node {
	switch {
	case st != answered:
		c.owners.lose(name, n)
		c.survey()
	case code == facet.CodeUnknownOutcome:
		c.owners.lose(name, n)
	case code != facet.CodeUnavailable:
		return n
	}
	next := c.nodes.after(n)
	c.home.CompareAndSwap(n, next)
	return next
}

// first is the node to ask first.
func (c *Client) first(name facet.Name) *node {
	if n := c.owners.get(name); n != nil {
		return n
	}
	return c.home.Load()
}

// survey asks the cluster, in the background and not too often, which nodes there
// are, so that one endpoint is enough to survive the loss of it. A cluster that
// does not tell the bearer of this token costs nothing but that.
func (c *Client) survey() {
	s := &c.nodes
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking || !s.asked.IsZero() && time.Since(s.asked) < surveyEvery {
		return
	}
	s.asking, s.asked = true, time.Now()
	started := c.start(func() {
		ctx, cancel := context.WithTimeout(c.ctx, surveyTimeout)
		defer cancel()
		for _, at := range c.askForNodes(ctx) {
			s.add(c, at)
		}
		s.mu.Lock()
		s.asking = false
		s.mu.Unlock()
	})
	s.asking = s.asking && started
}

// askForNodes asks the node that requests go to. There is nobody to tell an error,
// and nothing to do about it: the endpoints and redirects are still there.
func (c *Client) askForNodes(ctx context.Context) []endpoint {
	n := c.home.Load()
	resp, err := c.request(ctx, http.MethodGet, n.at.String()+"/v1/cluster", &once{})
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var body struct {
		Nodes []struct {
			API   string `json:"api"`
			State string `json:"state"`
		} `json:"nodes"`
	}
	if resp.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(resp.Body, maxInfoBody)).Decode(&body) != nil {
		return nil
	}
	var found []endpoint
	for _, m := range body.Nodes[:min(len(body.Nodes), maxNodes)] {
		at, err := parseEndpoint(m.API)
		if err != nil || m.State == "left" {
			continue
		}
		if host, _, _ := net.SplitHostPort(at.host); net.ParseIP(host) != nil && net.ParseIP(host).IsUnspecified() {
			continue // it listens everywhere, which is no address to go to
		}
		if m.API == at.host {
			at.tls = n.at.tls
		}
		if c.private && !at.tls {
			continue
		}
		found = append(found, at)
	}
	return found
}
