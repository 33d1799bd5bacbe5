package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/facetd/facetd/client"
)

// facetdPeer is facetd through its own SDK: a key is a facet.
type facetdPeer struct{}

func (facetdPeer) name() string          { return "facetd" }
func (facetdPeer) versionArgs() []string { return []string{"version"} }
func (facetdPeer) about() string {
	return "Go SDK, one client given all endpoints, default options; a key is a facet of its own with one row"
}

func (facetdPeer) commands(dirs []string, ports []int) (all [][]string) {
	var seeds []string
	for _, p := range ports {
		seeds = append(seeds, loopback(p+2))
	}
	for k, p := range ports {
		all = append(all, []string{"serve", "--insecure", "--node-id", fmt.Sprintf("node-%d", k+1), "--data", dirs[k],
			"--listen", loopback(p), "--peer-listen", loopback(p + 1), "--gossip-listen", loopback(p + 2),
			"--join", strings.Join(seeds, ","), "--bootstrap-expect", fmt.Sprint(len(ports)), "--log-level", "warn"})
	}
	return all
}

func (facetdPeer) open(ctx context.Context, ports []int) (session, error) {
	var at []string
	for _, p := range ports {
		at = append(at, "http://"+loopback(p))
	}
	c, err := client.Open(ctx, at, client.Options{Software: "facetd bench/peers"})
	if err != nil {
		return nil, err
	}
	info, err := c.Cluster(ctx)
	alive := 0
	for _, n := range info.Nodes {
		if n.State == "alive" {
			alive++
		}
	}
	if err == nil && (alive < len(ports) || info.Leader == "") {
		err = fmt.Errorf("%d of %d nodes are alive, leader %q", alive, len(ports), info.Leader)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &facetdSession{c: c}, nil
}

type facetdSession struct {
	c      *client.Client
	facets []*client.Facet
}

func (s *facetdSession) prepare(context.Context) error {
	b, err := s.c.Bind("peers")
	if err != nil {
		return err
	}
	for i := range *keys {
		f, err := b.Facet(fmt.Sprintf("key-%06d", i))
		if err != nil {
			return err
		}
		s.facets = append(s.facets, f)
	}
	return nil
}

func (s *facetdSession) write(ctx context.Context, key int, value []byte, first bool) error {
	f := s.facets[key]
	if first {
		if _, err := f.Exec(ctx, createSQL); err != nil {
			return err
		}
	}
	res, err := f.Exec(ctx, upsertSQL, 1, value)
	if err == nil && res.RowsAffected != 1 {
		err = fmt.Errorf("a write changed %d rows", res.RowsAffected)
	}
	return err
}

func (s *facetdSession) read(ctx context.Context, key int) (int, error) {
	var v []byte
	err := s.facets[key].QueryRow(ctx, selectSQL, 1).Scan(&v)
	return len(v), err
}

func (s *facetdSession) close() error { return s.c.Close() }
