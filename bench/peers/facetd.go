package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/facetd/facetd/client"
)

// facetdPeer is facetd through its own SDK: a key is a facet.
type facetdPeer struct {
	name  string
	nodes int
}

func (p facetdPeer) about() about {
	durable := "fsynced by a majority of three nodes"
	if p.nodes == 1 {
		durable = "fsynced by the one node"
	}
	return about{Name: p.name, Program: "facetd", Processes: p.nodes, Durable: durable, Databases: true,
		Client: "Go SDK, one client given all endpoints, default options",
		Key:    "a facet, which is a database, with one row"}
}

func (facetdPeer) version(ctx context.Context, path string) (string, error) {
	return ask(ctx, path, "version")
}

func (facetdPeer) launches(at place) (all []launch, err error) {
	var seeds []string
	for _, p := range at.ports {
		seeds = append(seeds, loopback(p+2))
	}
	for k, p := range at.ports {
		all = append(all, launch{args: []string{"serve", "--insecure", "--node-id", fmt.Sprintf("node-%d", k+1), "--data", at.dirs[k],
			"--listen", loopback(p), "--peer-listen", loopback(p + 1), "--gossip-listen", loopback(p + 2),
			"--join", strings.Join(seeds, ","), "--bootstrap-expect", fmt.Sprint(len(at.ports)), "--log-level", "warn"}})
	}
	return all, nil
}

func (facetdPeer) open(ctx context.Context, at place, s settings) (session, error) {
	var urls []string
	for _, p := range at.ports {
		urls = append(urls, "http://"+loopback(p))
	}
	c, err := client.Open(ctx, urls, client.Options{Software: "facetd bench/peers"})
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
	if err == nil && (alive < len(urls) || info.Leader == "") {
		err = fmt.Errorf("%d of %d nodes are alive, leader %q", alive, len(urls), info.Leader)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &facetdSession{c: c, urls: urls, facets: make([]*client.Facet, max(s.Keys, s.Create))}, nil
}

type facetdSession struct {
	c      *client.Client
	urls   []string
	facets []*client.Facet
}

func (s *facetdSession) prepare(context.Context) error {
	b, err := s.c.Bind("peers")
	if err != nil {
		return err
	}
	for i := range s.facets {
		if s.facets[i], err = b.Facet(keyName(i)); err != nil {
			return err
		}
	}
	return nil
}

func (s *facetdSession) create(ctx context.Context, key int, value []byte) error {
	_, err := s.facets[key].Batch(ctx, client.Stmt{SQL: createSQL}, client.Stmt{SQL: upsertSQL, Args: []any{1, value}})
	return err
}

func (s *facetdSession) write(ctx context.Context, key int, value []byte) error {
	res, err := s.facets[key].Exec(ctx, upsertSQL, 1, value)
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

func (s *facetdSession) sent(ctx context.Context) (int64, error) {
	return sumMetrics(ctx, s.urls, "facetd_peer_sent_bytes_total")
}

func (s *facetdSession) close() error { return s.c.Close() }
