package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsPeer is the key-value store of NATS JetStream, three copies, with sync_interval
// always: without it servers fsync every two minutes, and what was acknowledged
// meanwhile is lost with the machines.
type natsPeer struct{}

const (
	natsBucket = "peers"
	natsStream = "KV_" + natsBucket // of that bucket
)

func (natsPeer) about() about {
	return about{Name: "nats", Program: "nats-server", Processes: clusterSize, Against: "facetd", Key: "a key of one bucket with three replicas",
		Client: "nats.go, jetstream.KeyValue, one connection to the leader of the bucket, which all callers share; " +
			"Put, and Get with direct reads off, so that the leader answers (a direct read may be stale)",
		Durable: "fsynced by a majority of three nodes: sync_interval always, which is not the default (every 2 minutes)"}
}

func (natsPeer) version(ctx context.Context, path string) (string, error) {
	return ask(ctx, path, "-v")
}

func (natsPeer) launches(at place) (all []launch, err error) {
	var routes []string
	for _, p := range at.ports {
		routes = append(routes, "nats://"+loopback(p+1))
	}
	for k, p := range at.ports {
		conf := at.dirs[k] + ".conf"
		all = append(all, launch{args: []string{"-c", conf}, files: map[string]string{conf: fmt.Sprintf(`server_name: n%d
listen: %q
http: %q
jetstream: { store_dir: %q, sync_interval: always }
cluster: { name: peers, listen: %q, routes: [%s] }
`, k+1, loopback(p), loopback(p+2), at.dirs[k], loopback(p+1), strings.Join(routes, ", "))}})
	}
	return all, nil
}

func (natsPeer) open(ctx context.Context, at place, s settings) (_ session, err error) {
	var clients, monitors []string
	for _, p := range at.ports {
		clients = append(clients, "nats://"+loopback(p))
		monitors = append(monitors, "http://"+loopback(p+2))
	}
	// Each server of the cluster must be there before a bucket is made on all of them.
	for _, m := range monitors {
		r, err := natsRoutes(ctx, m)
		if err != nil {
			return nil, err
		}
		if r.servers() != clusterSize-1 {
			return nil, fmt.Errorf("%s has routes to %d servers", m, r.servers())
		}
	}
	c, err := nats.Connect(strings.Join(clients, ","))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	js, err := jetstream.New(c)
	if err != nil {
		return nil, err
	}
	if _, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: natsBucket, Replicas: clusterSize}); err != nil {
		return nil, err
	}
	stream, err := js.Stream(ctx, natsStream)
	if err != nil {
		return nil, err
	}
	config := stream.CachedInfo().Config
	config.AllowDirect = false
	info, err := js.UpdateStream(ctx, config)
	if err != nil {
		return nil, err
	}
	cluster := info.CachedInfo().Cluster
	if cluster == nil || cluster.Leader == "" || len(cluster.Replicas) != clusterSize-1 {
		return nil, errors.New("the bucket has no leader yet, or not all replicas")
	}
	k := slices.Index([]string{"n1", "n2", "n3"}, cluster.Leader)
	if k < 0 {
		return nil, fmt.Errorf("the leader of the bucket is %q", cluster.Leader)
	}
	c.Close()
	if c, err = nats.Connect(clients[k]); err != nil {
		return nil, err
	}
	if js, err = jetstream.New(c); err != nil {
		return nil, err
	}
	kv, err := js.KeyValue(ctx, natsBucket)
	if err != nil {
		return nil, err
	}
	return &natsSession{c: c, kv: kv, monitors: monitors}, nil
}

type natsSession struct {
	c        *nats.Conn
	kv       jetstream.KeyValue
	monitors []string
}

func (*natsSession) prepare(context.Context) error { return nil }

func (s *natsSession) create(ctx context.Context, key int, value []byte) error {
	return s.write(ctx, key, value)
}

func (s *natsSession) write(ctx context.Context, key int, value []byte) error {
	_, err := s.kv.Put(ctx, keyName(key), value)
	return err
}

func (s *natsSession) read(ctx context.Context, key int) (int, error) {
	e, err := s.kv.Get(ctx, keyName(key))
	if err != nil {
		return 0, err
	}
	return len(e.Value()), nil
}

func (s *natsSession) sent(ctx context.Context) (sum int64, err error) {
	for _, m := range s.monitors {
		r, err := natsRoutes(ctx, m)
		if err != nil {
			return 0, err
		}
		for _, x := range r.Routes {
			sum += x.Sent
		}
	}
	return sum, nil
}

func (s *natsSession) close() error {
	s.c.Close()
	return nil
}

// natsRouting is what a server tells of its connections to others, of which it has
// several to each.
type natsRouting struct {
	Routes []struct {
		Remote string `json:"remote_name"`
		Sent   int64  `json:"out_bytes"`
	} `json:"routes"`
}

func (r *natsRouting) servers() int {
	names := make(map[string]bool)
	for _, x := range r.Routes {
		names[x.Remote] = true
	}
	return len(names)
}

func natsRoutes(ctx context.Context, monitor string) (*natsRouting, error) {
	raw, err := askHTTP(ctx, http.DefaultClient, http.MethodGet, monitor+"/routez", "", nil)
	if err != nil {
		return nil, err
	}
	r := new(natsRouting)
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("routes of %s: %w", monitor, err)
	}
	return r, nil
}
