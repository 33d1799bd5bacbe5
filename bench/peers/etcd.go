package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcdPeer is etcd through its Go client: one client that all callers share, which
// is the fastest of the usual ways. leader directs it to the leader alone: that
// saves a hop, and costs a third less processor time than spreading the calls.
type etcdPeer struct{ leader bool }

func (p etcdPeer) about() about {
	to := "given all endpoints"
	if p.leader {
		to = "connected to the leader"
	}
	return about{Name: "etcd", Program: "etcd", Processes: clusterSize, Against: "facetd", Key: "a key",
		Client:  "clientv3, one shared client " + to + "; Put, and Get as it is (linearizable)",
		Durable: "fsynced by a majority of three nodes (default)"}
}

func (etcdPeer) version(ctx context.Context, path string) (string, error) {
	return ask(ctx, path, "--version")
}

func (etcdPeer) launches(at place) (all []launch, err error) {
	var initial []string
	for k, p := range at.ports {
		initial = append(initial, fmt.Sprintf("n%d=http://%s", k+1, loopback(p+1)))
	}
	for k, p := range at.ports {
		all = append(all, launch{args: []string{"--name", fmt.Sprintf("n%d", k+1), "--data-dir", at.dirs[k],
			"--listen-client-urls", "http://" + loopback(p), "--advertise-client-urls", "http://" + loopback(p),
			"--listen-peer-urls", "http://" + loopback(p+1), "--initial-advertise-peer-urls", "http://" + loopback(p+1),
			"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new",
			"--initial-cluster-token", "peers", "--log-level", "error"}})
	}
	return all, nil
}

func (p etcdPeer) open(ctx context.Context, at place, _ settings) (session, error) {
	var all, urls []string
	for _, port := range at.ports {
		all = append(all, loopback(port))
		urls = append(urls, "http://"+loopback(port))
	}
	c, err := connectEtcd(ctx, all)
	if err != nil {
		return nil, err
	}
	led := ""
	for _, e := range all {
		st, err := c.Status(ctx, e)
		if err == nil && st.Leader == 0 {
			err = errors.New("there is no leader")
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("status of %s: %w", e, err), c.Close())
		}
		if st.Leader == st.Header.MemberId {
			led = e
		}
	}
	if p.leader {
		c.Close()
		if led == "" {
			return nil, errors.New("nobody says that it leads")
		}
		if c, err = connectEtcd(ctx, []string{led}); err != nil {
			return nil, err
		}
	}
	return etcdSession{c, urls}, nil
}

func connectEtcd(ctx context.Context, at []string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: at, Context: context.WithoutCancel(ctx), DialTimeout: callTimeout, Logger: zap.NewNop()})
}

type etcdSession struct {
	c    *clientv3.Client
	urls []string
}

func (etcdSession) prepare(context.Context) error { return nil }

func (s etcdSession) create(ctx context.Context, key int, value []byte) error {
	return s.write(ctx, key, value)
}

func (s etcdSession) write(ctx context.Context, key int, value []byte) error {
	_, err := s.c.Put(ctx, keyName(key), string(value))
	return err
}

func (s etcdSession) read(ctx context.Context, key int) (int, error) {
	res, err := s.c.Get(ctx, keyName(key))
	if err != nil {
		return 0, err
	}
	if len(res.Kvs) != 1 {
		return 0, fmt.Errorf("%d values of key %d", len(res.Kvs), key)
	}
	return len(res.Kvs[0].Value), nil
}

func (s etcdSession) sent(ctx context.Context) (int64, error) {
	return sumMetrics(ctx, s.urls, "etcd_network_peer_sent_bytes_total")
}

func (s etcdSession) close() error { return s.c.Close() }
