package peer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
)

// RaftStream is what consensus carries Raft with.
var _ consensus.Stream = (*RaftStream)(nil)

// TestRefusals connects to whom one must not connect to.
func TestRefusals(t *testing.T) {
	none := func() cluster.ID { return cluster.ID{} }
	other := func() cluster.ID { return cluster.ID{9} }
	for _, c := range []struct {
		name   string
		there  func(*Config)
		here   func(*Config)
		dial   cluster.NodeID
		reason error
	}{
		{"wrong cluster", func(c *Config) { c.Cluster = other }, nil, "n2", ErrWrongCluster},
		{"they have no cluster yet", func(c *Config) { c.Cluster = none }, nil, "n2", ErrWrongCluster},
		{"we have no cluster yet", nil, func(c *Config) { c.Cluster = none }, "n2", ErrWrongCluster},
		{"nobody has a cluster yet", func(c *Config) { c.Cluster = none }, func(c *Config) { c.Cluster = none }, "n2", ErrWrongCluster},
		{"another node answers", nil, nil, "n3", ErrWrongNode},
		{"same node id", nil, func(c *Config) { c.Node, c.Boot = "n2", bootOf(7) }, "n2", ErrWrongNode},
		{"no handler", func(c *Config) { c.Handler = nil }, nil, "n2", ErrNoService},
		{"two versions newer", func(c *Config) { c.versionMin, c.versionMax = 2, 3 }, nil, "n2", ErrVersion},
		{"two versions older", nil, func(c *Config) { c.versionMin, c.versionMax = 2, 3 }, "n2", ErrVersion},
	} {
		t.Run(c.name, func(t *testing.T) {
			where := newAddresses()
			n2 := start(t, "n2", where, c.there)
			n1 := start(t, "n1", newAddresses(), func(cfg *Config) {
				cfg.AddressOf = func(cluster.NodeID) (string, bool) { return n2.Addr().String(), true }
				if c.here != nil {
					c.here(cfg)
				}
			})
			_, err := n1.Peer(c.dial).Ping(t.Context())
			if !errors.Is(err, c.reason) || !errors.Is(err, ErrDown) {
				t.Errorf("ping: %v, want %v", err, c.reason)
			}
			if r, ok := errors.AsType[*RefusedError](err); !ok || r.Address != n2.Addr().String() || r.Detail == "" {
				t.Errorf("refusal %+v does not say enough", r)
			}
			if s := n1.Peer(c.dial).Status(); s.Connected || !errors.Is(s.Err, c.reason) {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// TestVersionSkewOfOne: neighbours in a rolling upgrade speak the older version.
func TestVersionSkewOfOne(t *testing.T) {
	for _, newer := range []cluster.NodeID{"n1", "n2"} {
		where := newAddresses()
		adjust := func(cfg *Config) {
			cfg.versionMin, cfg.versionMax = 1, 1
			if cfg.Node == newer {
				cfg.versionMax = 2
			}
		}
		n1 := start(t, "n1", where, adjust)
		n2 := start(t, "n2", where, adjust)
		connect(t, n1.Peer("n2"))
		nc, g, _, err := n1.open(t.Context(), kindAsk, "n2", n2.Addr().String(), nil)
		check(t, err)
		nc.Close()
		if want := map[bool]uint8{true: 2, false: 1}[newer == "n2"]; g.versionMax != want {
			t.Errorf("n2 says that it speaks up to version %d, want %d", g.versionMax, want)
		}
	}
}

// TestWho asks a node that belongs to no cluster, and one of another version, to whom
// nothing else can be said.
func TestWho(t *testing.T) {
	n2 := start(t, "n2", newAddresses(), func(cfg *Config) { cfg.versionMin, cfg.versionMax = 7, 8 })
	n3 := start(t, "n3", newAddresses(), func(cfg *Config) {
		cfg.Cluster = func() cluster.ID { return cluster.ID{} }
		cfg.Answer = func(from Remote, q []byte) ([]byte, error) {
			if string(q) == "why" {
				return nil, errors.New("because")
			}
			return append([]byte(from.Node+" asks "), q...), nil
		}
	})
	n1 := start(t, "n1", newAddresses(), nil)
	who, err := n1.Who(t.Context(), n2.Addr().String())
	check(t, err)
	if who.Node != "n2" || who.Boot != bootOf('2') || who.Store.IsZero() || who.VersionMin != 7 || who.VersionMax != 8 {
		t.Errorf("n2 says it is %+v", who)
	}
	if who, err := n2.Who(t.Context(), n1.Addr().String()); err != nil || who.Cluster != testCluster {
		t.Errorf("n1 says it is %+v, %v", who, err)
	}
	if who, err := n1.Who(t.Context(), n3.Addr().String()); err != nil || who.Node != "n3" || !who.Cluster.IsZero() {
		t.Errorf("n3 says it is %+v, %v", who, err)
	}
	if _, err := n1.Exchange(t.Context(), n2.Addr().String(), []byte("who else")); !errors.Is(err, ErrVersion) {
		t.Errorf("exchange with one of another version: %v", err)
	}
	if a, err := n1.Exchange(t.Context(), n3.Addr().String(), []byte("who else")); err != nil || string(a) != "n1 asks who else" {
		t.Errorf("exchange: %q, %v", a, err)
	}
	long := bytes.Repeat([]byte("x"), MaxExchange-len("n1 asks "))
	if a, err := n1.Exchange(t.Context(), n3.Addr().String(), long); err != nil || len(a) != MaxExchange {
		t.Errorf("long exchange: %d bytes, %v", len(a), err)
	}
	if _, err := n1.Exchange(t.Context(), n3.Addr().String(), append(long, 'x')); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("exchange with too long an answer: %v", err)
	}
	if _, err := n1.Exchange(t.Context(), n3.Addr().String(), make([]byte, MaxExchange+1)); !errors.Is(err, ErrTooLong) {
		t.Errorf("exchange with too long a question: %v", err)
	}
	if _, err := n1.Exchange(t.Context(), n3.Addr().String(), []byte("why")); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "because") {
		t.Errorf("exchange that fails: %v", err)
	}
	if _, err := n3.Exchange(t.Context(), n1.Addr().String(), []byte("why")); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("exchange with one that answers nothing: %v", err)
	}
	if _, err := n1.Who(t.Context(), "127.0.0.1:1"); err == nil {
		t.Error("nobody answered, and it was no error")
	}
}

// TestStrangers connect to the peer port and say something else, or nothing.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemNet()
		n2 := start(t, "n2", newAddresses(), mem.on("two"))
		defer n2.Close()
		bad := sampleGreeting().append(nil)
		bad[100] ^= 1
		for _, c := range []struct {
			name string
			say  []byte
			wait time.Duration
		}{
			{"HTTP", []byte("GET / HTTP/1.1\r\n"), time.Second / 10},
			{"nothing", nil, greetTimeout},
			{"half a greeting", sampleGreeting().append(nil)[:100], greetTimeout},
			{"a damaged greeting", bad, time.Second / 10},
		} {
			nc, err := mem.dial(t.Context(), "two")
			check(t, err)
			begin := time.Now()
			nc.Write(c.say)
			got, _ := io.ReadAll(nc)
			if d := time.Since(begin); d > c.wait+time.Second/10 || len(got) != 0 {
				t.Errorf("%s: answered %q and closed after %v", c.name, got, d)
			}
			nc.Close()
		}
	})
}

// TestWrongServer dials something that is no facetd.
func TestWrongServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(nc, "220 mail.example ESMTP ready\r\n")
			io.Copy(io.Discard, nc)
			nc.Close()
		}
	}()
	where := newAddresses()
	where.set("n2", l.Addr().String())
	n1 := start(t, "n1", where, nil)
	if _, err := n1.Peer("n2").Ping(t.Context()); !errors.Is(err, ErrGreeting) {
		t.Errorf("ping of a mail server: %v", err)
	}
	if _, err := n1.Peer("n9").Ping(t.Context()); !errors.Is(err, ErrDown) {
		t.Errorf("ping of a node without address: %v", err)
	}
}

// TestBadFrames ends the stream, says so, and harms no other.
func TestBadFrames(t *testing.T) {
	where, heard := newAddresses(), newEars()
	n2 := start(t, "n2", where, nil)
	n1 := start(t, "n1", where, func(cfg *Config) { cfg.Acks = heard })
	p := n1.Peer("n2")
	connect(t, p)
	heard.next(t, "ready")
	for _, f := range [][]byte{
		body(typeAppend, 0, 0, []byte{1, 2, 3}), body(typeAck, 0, 0, nil), body(200, 0, 0, nil), body(typePages, 0, 0, nil),
		body(typePrepare, 0, 1, nil), body(typeFetch, 0, 1, nil), body(typeCheck, 0, 1, nil), body(typeRenew, 0, 1, nil), body(typePropose, 0, 1, nil),
	} {
		nc, _, _, err := n1.open(t.Context(), kindPeer, "n2", n2.Addr().String(), nil)
		check(t, err)
		nc.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = nc.Write(f)
		check(t, err)
		if got, err := io.ReadAll(nc); len(got) != 0 || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("frame %x was answered with %x, %v", f, got, err)
		}
		nc.Close()
	}
	if s := p.Status(); s.Lost != 0 {
		t.Errorf("status %+v", s)
	}
	// The same from the answering side.
	for _, f := range [][]byte{body(typeAck, 0, 0, []byte{1}), body(typeAppend, 0, 0, nil), body(99, 0, 0, nil)} {
		l := n1.Peer("n2").link.Load()
		fr, _, err := wireFrame(f)
		check(t, err)
		if err := l.handle(fr); !errors.Is(err, ErrMalformed) {
			t.Errorf("frame %x: %v", f, err)
		}
	}
}

// TestRaft carries connections for Raft, both ways, until the stream is closed.
func TestRaft(t *testing.T) {
	where := newAddresses()
	n1 := start(t, "n1", where, nil)
	n2 := start(t, "n2", where, nil)
	s1 := n1.Raft()
	address := n2.Addr().String()
	if _, err := s1.Dial(address, time.Second); !errors.Is(err, ErrNoService) {
		t.Errorf("dial before they take Raft: %v", err)
	}
	s2 := n2.Raft()
	if s2.Addr().String() != address {
		t.Errorf("raft at %v, want %v", s2.Addr(), address)
	}
	for _, a := range []string{address, NodeAddress("n2", address)} {
		echoed := make(chan error, 1)
		go func() {
			nc, err := s2.Accept()
			if err != nil {
				echoed <- err
				return
			}
			_, err = io.Copy(nc, nc)
			echoed <- errors.Join(err, nc.Close())
		}()
		nc, err := s1.Dial(a, time.Second)
		check(t, err)
		_, err = nc.Write([]byte("vote"))
		check(t, err)
		buf := make([]byte, 4)
		_, err = io.ReadFull(nc, buf)
		check(t, err)
		if string(buf) != "vote" {
			t.Errorf("got %q", buf)
		}
		check(t, nc.Close())
		check(t, <-echoed)
	}
	if _, err := s1.Dial(NodeAddress("n3", address), time.Second); !errors.Is(err, ErrWrongNode) {
		t.Errorf("dial of n3 at the address of n2: %v", err)
	}
	if _, err := s1.Dial("NOT A NODE@"+address, time.Second); err == nil {
		t.Error("dialled a node that has no name")
	}
	check(t, s2.Close())
	if _, err := s2.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after Close: %v", err)
	}
	if _, err := s1.Dial(address, time.Second); !errors.Is(err, ErrNoService) {
		t.Errorf("dial after they closed: %v", err)
	}
	connect(t, n1.Peer("n2")) // the transport goes on
}

// TestRaftEndsWithTransport: what Raft borrowed is closed with the rest.
func TestRaftEndsWithTransport(t *testing.T) {
	where := newAddresses()
	n1, n2 := start(t, "n1", where, nil), start(t, "n2", where, nil)
	n2.Raft()
	accepted := make(chan net.Conn, 1)
	go func() {
		nc, err := n2.Raft().Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- nc
	}()
	nc, err := n1.Raft().Dial(n2.Addr().String(), time.Second)
	check(t, err)
	defer nc.Close()
	(<-accepted).SetReadDeadline(time.Now().Add(20 * time.Second))
	check(t, n1.Close())
	if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
}

// TestRaftRuns lets three real voters found a cluster by Exchange, elect a leader
// over Raft's connections, and forward commands to it by Propose.
func TestRaftRuns(t *testing.T) {
	where := newAddresses()
	var nodes [3]*consensus.Node
	var opened [3]chan struct{}
	var transports []*Transport
	var members []cluster.Member
	for i := range nodes {
		opened[i] = make(chan struct{})
		id := cluster.NodeID(fmt.Sprintf("n%d", i+1))
		tr := start(t, id, where, func(cfg *Config) {
			cfg.Cluster = func() cluster.ID {
				select {
				case <-opened[i]:
					return nodes[i].ClusterID()
				default:
					return cluster.ID{}
				}
			}
			cfg.Answer = func(_ Remote, q []byte) ([]byte, error) {
				<-opened[i]
				return nodes[i].Answer(q)
			}
			cfg.Placement = &funcs{proposeFn: func(from *Caller, cmds [][]byte, reply func(int, []byte, error)) {
				go func() { // ends with the node, which is closed before the test ends
					out, err := nodes[i].Accept(t.Context(), from.Remote().Node, cmds)
					if errors.Is(err, consensus.ErrNotLeader) {
						err = &NotLeaderError{}
					}
					for j := range cmds {
						if err == nil {
							reply(j, out[j], nil)
						} else {
							reply(j, nil, err)
						}
					}
				}()
			}}
		})
		transports = append(transports, tr)
		members = append(members, cluster.Member{ID: id, Peer: tr.Addr().String(), Status: cluster.StatusAlive})
	}
	for i, tr := range transports {
		id := members[i].ID
		n, err := consensus.Open(consensus.Config{
			ID: id, Memory: consensus.NewMemory(), StateMachine: nothing{}, Expect: 3,
			Stream: tr.Raft(), Address: tr.Addr().String(), Exchange: tr.Exchange,
			AddressOf: func(id cluster.NodeID) (string, bool) {
				a, ok := where.get(id)
				return NodeAddress(id, a), ok
			},
			Forward: func(ctx context.Context, leader cluster.NodeID, _ string, cmds [][]byte) ([][]byte, error) {
				res, err := tr.Peer(leader).Propose(ctx, cmds)
				out := make([][]byte, len(res))
				for j := range res {
					out[j], err = res[j].Result, errors.Join(err, res[j].Err)
				}
				switch {
				case errors.Is(err, ErrDown), errors.Is(err, ErrBusy):
					err = errors.Join(consensus.ErrNotSent, err)
				case errors.Is(err, ErrNotLeader): // not yet told that it was elected, or deposed
					err = errors.Join(consensus.ErrNotLeader, err)
				}
				return out, err
			},
		})
		check(t, err)
		t.Cleanup(func() { n.Close() })
		nodes[i] = n
		close(opened[i])
		view, err := cluster.NewView(cluster.ID{}, id, slices.Clone(members))
		check(t, err)
		n.SetView(view)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i, n := range nodes {
		_, err := n.WaitCluster(ctx)
		check(t, err)
		out, err := n.Propose(ctx, fmt.Appendf(nil, "hello from %d", i))
		check(t, err)
		if string(out) != fmt.Sprintf("did hello from %d", i) {
			t.Errorf("proposal gave %q", out)
		}
	}
	connect(t, transports[0].Peer("n2"))
	connect(t, transports[0].Peer("n3"))
}

// nothing is a state machine without state.
type nothing struct{}

func (nothing) Check([]byte) error { return nil }
func (nothing) Apply(_ uint64, cmds [][]byte) ([][]byte, error) {
	out := make([][]byte, len(cmds))
	for i, c := range cmds {
		out[i] = append([]byte("did "), c...)
	}
	return out, nil
}
func (nothing) Snapshot() (io.WriterTo, error) { return nil, errors.New("no state") }
func (nothing) Restore(io.Reader) error        { return nil }

// authority signs certificates for nodes.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{t, cert, key, pool}
}

// on gives a node a certificate with the name given.
func (a *authority) on(name string) func(*Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(a.t, err)
	tpl := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, a.cert, &key.PublicKey, a.key)
	check(a.t, err)
	certs := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return func(cfg *Config) {
		cfg.ServerTLS = &tls.Config{Certificates: certs, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool}
		cfg.ClientTLS = &tls.Config{Certificates: certs, RootCAs: a.pool}
		cfg.Identify = func(s tls.ConnectionState, node cluster.NodeID) error {
			if names := s.PeerCertificates[0].DNSNames; !slices.Contains(names, string(node)) {
				return fmt.Errorf("it is for %q", names)
			}
			return nil
		}
	}
}

func TestTLS(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	where, heard := newAddresses(), newEars()
	n1 := start(t, "n1", where, func(cfg *Config) { ca.on("n1")(cfg); cfg.Acks = heard })
	start(t, "n2", where, ca.on("n2"))
	n3 := start(t, "n3", where, ca.on("n7")) // claims to be n3
	n4 := start(t, "n4", where, stranger.on("n4"))
	n5 := start(t, "n5", where, nil) // no TLS at all

	p := n1.Peer("n2")
	connect(t, p)
	heard.next(t, "ready")
	for seq := facet.Seq(1); seq <= 100; seq++ {
		check(t, p.Append(AppendItem{5, 0, entry(idA, 5, seq, 2000)}))
	}
	for range 100 {
		heard.next(t, "acked")
	}
	if _, err := n1.Peer("n3").Ping(t.Context()); !errors.Is(err, ErrIdentity) {
		t.Errorf("n3 with the certificate of n7: %v", err)
	}
	for _, c := range []struct {
		name string
		from *Transport
		to   cluster.NodeID
	}{
		{"a stranger dials", n4, "n1"}, {"a stranger answers", n1, "n4"}, {"plain to TLS", n5, "n1"}, {"TLS to plain", n1, "n5"},
	} {
		_, err := c.from.Peer(c.to).Ping(t.Context())
		if !errors.Is(err, ErrDown) {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.from == n5 && !strings.Contains(err.Error(), "does the other node want TLS?") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// What a connection is for makes no difference.
	n1.Raft()
	for name, dial := range map[string]func() error{
		"Raft to it":       func() error { _, err := n1.Raft().Dial(NodeAddress("n3", n3.Addr().String()), time.Minute); return err },
		"Raft to anybody":  func() error { _, err := n1.Raft().Dial(n3.Addr().String(), time.Minute); return err },
		"Raft from it":     func() error { _, err := n3.Raft().Dial(NodeAddress("n1", n1.Addr().String()), time.Minute); return err },
		"a question to it": func() error { _, err := n1.Exchange(t.Context(), n3.Addr().String(), []byte("?")); return err },
		"who it is":        func() error { _, err := n3.Who(t.Context(), n1.Addr().String()); return err },
	} {
		if err := dial(); !errors.Is(err, ErrIdentity) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := p.Status(); s.Lost != 0 {
		t.Errorf("status %+v", s)
	}
	cfg := Config{Node: "n9", Boot: bootOf(9), Store: cluster.StoreID{9}, Cluster: n1.cfg.Cluster, AddressOf: where.get, Address: "127.0.0.1:0"}
	cfg.ServerTLS, cfg.ClientTLS = &tls.Config{}, &tls.Config{}
	if _, err := Listen(cfg); err == nil {
		t.Error("TLS that lets anyone in was accepted")
	}
}

// TestRecheck ends the connections of a node whose certificate is not good any more, and
// no others.
func TestRecheck(t *testing.T) {
	ca := newAuthority(t)
	where := newAddresses()
	var banned atomic.Pointer[cluster.NodeID]
	n1 := start(t, "n1", where, func(cfg *Config) {
		ca.on("n1")(cfg)
		name := cfg.Identify
		cfg.Identify = func(s tls.ConnectionState, node cluster.NodeID) error {
			if b := banned.Load(); b != nil && *b == node {
				return errors.New("it was good once")
			}
			return name(s, node)
		}
	})
	n2, n3 := start(t, "n2", where, ca.on("n2")), start(t, "n3", where, ca.on("n3"))
	connect(t, n1.Peer("n2"))
	connect(t, n1.Peer("n3"))
	connect(t, n2.Peer("n1"))
	connect(t, n3.Peer("n1"))
	n1.Raft()
	accepted := make(chan net.Conn, 1)
	go func() {
		nc, err := n1.Raft().Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- nc
	}()
	raft, err := n2.Raft().Dial(n1.Addr().String(), time.Minute)
	check(t, err)
	defer raft.Close()
	lent := <-accepted
	known := func() int {
		n1.identified.mu.Lock()
		defer n1.identified.mu.Unlock()
		return len(n1.identified.of)
	}
	if n := known(); n != 5 {
		t.Errorf("%d connections are known, want 5", n)
	}
	n1.Recheck()
	if _, err := n1.Peer("n2").Ping(t.Context()); err != nil || known() != 5 {
		t.Errorf("all are good: %v, %d", err, known())
	}
	banned.Store(new(cluster.NodeID("n2")))
	n1.Recheck()
	if _, err := raft.Read(make([]byte, 1)); err == nil {
		t.Error("a connection of Raft goes on")
	}
	for _, p := range []*Peer{n1.Peer("n2"), n2.Peer("n1")} {
		if _, err := p.Ping(t.Context()); err == nil {
			t.Error("they are connected again")
		}
	}
	for _, p := range []*Peer{n1.Peer("n3"), n3.Peer("n1")} {
		if _, err := p.Ping(t.Context()); err != nil || p.Status().Lost != 0 {
			t.Errorf("n3: %v, %+v", err, p.Status())
		}
	}
	lent.Close()
	check(t, n1.Close())
	if n := known(); n != 0 {
		t.Errorf("%d connections are known to a transport that is closed", n)
	}
}
