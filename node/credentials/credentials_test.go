package credentials

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/certs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a directory of files, a CA, and a Watcher that looks when it is told.
type bench struct {
	*testing.T
	dir string
	ca  *certs.Authority
	w   *Watcher
	log *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), what)
}

func newBench(t *testing.T, poll time.Duration) *bench {
	t.Helper()
	b := &bench{T: t, dir: t.TempDir(), log: &syncBuffer{}, ca: authority(t)}
	b.w = New(Options{Poll: poll, Log: slog.New(slog.NewTextHandler(b.log, nil))})
	t.Cleanup(func() {
		b.w.Close()
		b.w.Close() // as often as one likes
	})
	b.putCA("ca.pem", b.ca)
	return b
}

func authority(t *testing.T) *certs.Authority {
	t.Helper()
	a, err := certs.NewAuthority(certs.AuthorityOptions{}, time.Now().Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// put replaces a file as an operator should.
func (b *bench) put(name string, src []byte) {
	b.Helper()
	if err := os.WriteFile(b.path(name)+".new", src, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Rename(b.path(name)+".new", b.path(name)); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) putCA(name string, list ...*certs.Authority) {
	b.Helper()
	var all []byte
	for _, a := range list {
		cert, _, err := a.PEM()
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, cert...)
	}
	b.put(name, all)
}

// issue makes certificate and key of a subject.
func (b *bench) issue(by *certs.Authority, s certs.Subject) []byte {
	b.Helper()
	src, err := by.Issue(s, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	return src
}

func (b *bench) issueAt(by *certs.Authority, s certs.Subject, at time.Time) []byte {
	b.Helper()
	src, err := by.Issue(s, at)
	if err != nil {
		b.Fatal(err)
	}
	return src
}

func (b *bench) state(name string) State {
	b.Helper()
	for _, s := range b.w.States() {
		if s.Name == name {
			return s
		}
	}
	b.Fatalf("no source %s", name)
	return State{}
}

// meet has two ends shake hands over loopback, and gives them. Both are closed with the
// test.
func (b *bench) meet(server, client *tls.Config) (s, c *tls.Conn, serr, cerr error) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	ns, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nc.Close(); ns.Close() })
	end := time.Now().Add(30 * time.Second)
	nc.SetDeadline(end)
	ns.SetDeadline(end)
	s, c = tls.Server(ns, server), tls.Client(nc, client)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x")) // with TLS 1.3 a client hears of a refusal when it reads
		} else {
			ns.Close()
		}
		done <- err
	}()
	if cerr = c.Handshake(); cerr == nil {
		_, cerr = c.Read(make([]byte, 1))
	} else {
		nc.Close()
	}
	return s, c, <-done, cerr
}

func named(roots *x509.CertPool, host string) *tls.Config {
	return &tls.Config{RootCAs: roots, ServerName: host}
}

// TestAPIReload exchanges the certificate of an API port while a connection goes on.
func TestAPIReload(t *testing.T) {
	b := newBench(t, time.Hour)
	b.put("n1.pem", b.issue(b.ca, certs.Subject{Node: "n1", Hosts: []string{"one.example"}}))
	api, err := OpenAPI(b.w, Files{Cert: b.path("n1.pem"), CA: b.path("ca.pem")}, "")
	if err != nil {
		t.Fatal(err)
	}
	server, roots := api.Server(), certs.Pool(b.ca.Certificate())
	s, c, serr, cerr := b.meet(server, named(roots, "one.example"))
	if serr != nil || cerr != nil {
		t.Fatal(serr, cerr)
	}

	b.put("n1.pem", b.issue(b.ca, certs.Subject{Node: "n1", Hosts: []string{"two.example"}, Life: time.Hour}))
	b.w.Reload()
	if _, _, serr, cerr := b.meet(server, named(roots, "two.example")); serr != nil || cerr != nil {
		t.Error("with the new certificate:", serr, cerr)
	}
	if _, _, _, cerr := b.meet(server, named(roots, "one.example")); cerr == nil {
		t.Error("the old certificate is shown")
	}
	if st := b.state("api"); time.Until(st.Ends) > time.Hour || st.Failures != 0 {
		t.Errorf("%+v", st)
	}
	if b.log.count("action=\"change credentials\"") != 1 || b.log.count("ends soon") != 1 {
		t.Error("the log does not tell of the change, or that the new certificate ends soon")
	}
	// The connection of before goes on.
	go s.Write([]byte("hello"))
	if n, err := c.Read(make([]byte, 8)); n != 5 || err != nil {
		t.Error(n, err)
	}

	// What cannot be used changes nothing, is said once, and counted.
	expired := b.issueAt(b.ca, certs.Subject{Node: "n1", Life: time.Minute}, time.Now().Add(-time.Hour))
	for i, bad := range [][]byte{[]byte("nothing"), nil, expired, b.issue(b.ca, certs.Subject{Node: "n1"})[:300]} {
		b.put("n1.pem", bad)
		b.w.Reload()
		b.w.Reload()
		if st := b.state("api"); st.Failures != int64(i+1) {
			t.Errorf("%d: %+v", i, st)
		}
		if _, _, serr, cerr := b.meet(server, named(roots, "two.example")); serr != nil || cerr != nil {
			t.Error(serr, cerr)
		}
	}
	if n := b.log.count("what is in force stays"); n != 4 {
		t.Errorf("said %d times", n)
	}
}

// TestClientCA has the certificate go along where nodes want one of clients.
func TestClientCA(t *testing.T) {
	b := newBench(t, time.Hour)
	b.put("n1.pem", b.issue(b.ca, certs.Subject{Node: "n1", Hosts: []string{"one.example"}}))
	api, err := OpenAPI(b.w, Files{Cert: b.path("n1.pem"), CA: b.path("ca.pem")}, b.path("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	node := api.Client()
	node.ServerName = "one.example"
	if _, _, serr, cerr := b.meet(api.Server(), node); serr != nil || cerr != nil {
		t.Error(serr, cerr)
	}
	if _, _, serr, cerr := b.meet(api.Server(), named(certs.Pool(b.ca.Certificate()), "one.example")); serr == nil || cerr == nil {
		t.Error("without a certificate:", serr, cerr)
	}
	// Another CA is in force at once, also for those who were here before.
	b.putCA("ca.pem", authority(t))
	b.w.Reload()
	if _, _, serr, _ := b.meet(api.Server(), node); serr == nil {
		t.Error("the CA of before is in force")
	}
}

func TestOpenRefuses(t *testing.T) {
	b := newBench(t, time.Hour)
	other := authority(t)
	b.putCA("other.pem", other)
	b.put("n1.pem", b.issue(b.ca, certs.Subject{Node: "n1", Hosts: []string{"n2"}}))
	b.put("client.pem", b.issue(b.ca, certs.Subject{Client: "n1"}))
	b.put("old.pem", b.issueAt(b.ca, certs.Subject{Node: "n1", Life: time.Minute}, time.Now().Add(-time.Hour)))
	b.put("early.pem", b.issueAt(b.ca, certs.Subject{Node: "n1"}, time.Now().Add(time.Hour)))
	at := b.path
	for _, c := range []struct {
		files Files
		id    cluster.NodeID
		why   string
	}{
		{Files{Cert: at("n1.pem")}, "n1", "give a certificate with its key, and the CA"},
		{Files{Cert: at("n1.pem"), CA: at("absent.pem")}, "n1", "absent.pem"},
		{Files{Cert: at("n1.pem"), CA: at("ca.pem")}, "n2", "of node n1, not of node n2"},
		{Files{Cert: at("client.pem"), CA: at("ca.pem")}, "n1", `of client "n1"`},
		{Files{Cert: at("n1.pem"), CA: at("other.pem")}, "n1", "not good by the CA"},
		{Files{Cert: at("old.pem"), CA: at("ca.pem")}, "n1", "ended on"},
		{Files{Cert: at("early.pem"), CA: at("ca.pem")}, "n1", "is the clock right"},
		{Files{Cert: at("n1.pem"), Key: at("client.pem"), CA: at("ca.pem")}, "n1", "does not match"},
		{Files{Cert: at("ca.pem"), CA: at("ca.pem")}, "n1", "key"},
	} {
		if _, err := OpenPeer(b.w, c.files, c.id); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%v: %v, want %q", c.files, err, c.why)
		}
	}
	for _, c := range []struct {
		files   Files
		clients string
		why     string
	}{
		{Files{Key: at("n1.pem")}, "", "no certificate"},
		{Files{CA: at("ca.pem")}, at("ca.pem"), "has none itself"},
		{Files{Cert: at("old.pem")}, "", "ended on"},
		{Files{Cert: at("n1.pem"), CA: at("client.key")}, "", "client.key"},
		{Files{Cert: at("n1.pem")}, at("absent.pem"), "absent.pem"},
	} {
		if _, err := OpenAPI(b.w, c.files, c.clients); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%v: %v, want %q", c.files, err, c.why)
		}
	}
	if n := len(b.w.States()); n != 0 {
		t.Errorf("%d sources are watched that could not be taken", n)
	}
}

// TestPeers has nodes meet, as the handshake on the peer port does.
func TestPeers(t *testing.T) {
	b := newBench(t, time.Hour)
	open := func(id cluster.NodeID, file string) *Peer {
		t.Helper()
		p, err := OpenPeer(b.w, Files{Cert: b.path(file), CA: b.path("ca.pem")}, id)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	b.put("n1.pem", b.issue(b.ca, certs.Subject{Node: "n1", Hosts: []string{"n2"}}))
	b.put("n2.pem", b.issue(b.ca, certs.Subject{Node: "n2"}))
	n1, n2 := open("n1", "n1.pem"), open("n2", "n2.pem")
	s, c, serr, cerr := b.meet(n1.Server(), n2.Client())
	if serr != nil || cerr != nil {
		t.Fatal(serr, cerr)
	}
	for _, x := range []struct {
		at    *Peer
		state tls.ConnectionState
		id    cluster.NodeID
		good  bool
	}{{n1, s.ConnectionState(), "n2", true}, {n1, s.ConnectionState(), "n1", false}, {n2, c.ConnectionState(), "n1", true}, {n2, c.ConnectionState(), "n2", false}} {
		if err := x.at.Identify(x.state, x.id); (err == nil) != x.good {
			t.Errorf("%s: %v", x.id, err)
		}
	}

	// Strangers, and who has no certificate, or one that has ended.
	pairOf := func(src []byte) tls.Certificate {
		t.Helper()
		pair, err := certs.ParsePair(src, src)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	pair := pairOf(b.issue(authority(t), certs.Subject{Node: "n2"}))
	ended := pairOf(b.issueAt(b.ca, certs.Subject{Node: "n2", Life: time.Minute}, time.Now().Add(-time.Hour)))
	for name, cfg := range map[string]*tls.Config{
		"stranger": {Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}, "nobody": {InsecureSkipVerify: true},
		"ended":   {Certificates: []tls.Certificate{ended}, InsecureSkipVerify: true},
		"TLS 1.2": {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12},
	} {
		if _, _, serr, cerr := b.meet(n1.Server(), cfg); serr == nil || cerr == nil {
			t.Errorf("%s was let in: %v, %v", name, serr, cerr)
		}
	}
	for name, pair := range map[string]tls.Certificate{"a stranger": pair, "one whose certificate has ended": ended} {
		if _, _, _, cerr := b.meet(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}, n1.Client()); cerr == nil {
			t.Errorf("%s answers", name)
		}
	}

	// Another CA, in three steps: the new one beside the old one, new certificates,
	// without the old one. Nobody is refused at any step, and then whoever has an old
	// certificate is.
	changed := 0
	n1.OnChange(func() { changed++ })
	next := authority(t)
	meets := func(step string) {
		t.Helper()
		for _, x := range [][2]*Peer{{n1, n2}, {n2, n1}} {
			if _, _, serr, cerr := b.meet(x[0].Server(), x[1].Client()); serr != nil || cerr != nil {
				t.Errorf("%s: %v, %v", step, serr, cerr)
			}
		}
	}
	b.putCA("ca.pem", b.ca, next)
	b.w.Reload()
	meets("both CAs")
	b.put("n1.pem", b.issue(next, certs.Subject{Node: "n1"}))
	b.w.Reload()
	meets("n1 renewed")
	b.putCA("new.pem", next)
	b.put("n2.pem", b.issue(next, certs.Subject{Node: "n2"}))
	b.w.Reload()
	meets("n2 renewed")
	b.putCA("ca.pem", next)
	b.w.Reload()
	meets("the new CA")
	if err := n1.Identify(s.ConnectionState(), "n2"); err == nil {
		t.Error("a certificate of the old CA is good")
	}
	if changed != 3 {
		t.Errorf("told of %d changes", changed)
	}
	// A CA by which the node's own certificate is not good is a mistake.
	b.putCA("ca.pem", authority(t))
	b.w.Reload()
	meets("after a mistake")
	if st := b.w.States(); st[0].Failures != 1 || st[1].Failures != 1 {
		t.Errorf("%+v", st)
	}
}

// TestPoll sees a change without being told, and waits for the second of two files.
func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, time.Second)
		var taken []string
		b.put("a", []byte("1"))
		b.put("b", []byte("1"))
		err := b.w.Add(Source{Name: "pair", Files: []string{b.path("a"), b.path("b")}, Take: func(c [][]byte) (time.Time, error) {
			if !bytes.Equal(c[0], c[1]) {
				return time.Time{}, errors.New("they do not match")
			}
			taken = append(taken, string(c[0]))
			return time.Time{}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		tick := func() { time.Sleep(time.Second); synctest.Wait() }
		tick()
		b.put("a", []byte("2"))
		tick()
		b.put("b", []byte("2"))
		tick()
		if got := strings.Join(taken, ","); got != "1,2" || b.log.count("they do not match") != 0 || b.state("pair").Failures != 0 {
			t.Errorf("taken %s, %+v", got, b.state("pair"))
		}
		// A mistake that stays is said once.
		b.put("a", []byte("3"))
		for range 5 {
			tick()
		}
		if b.log.count("they do not match") != 1 || b.state("pair").Failures != 1 {
			t.Errorf("%+v", b.state("pair"))
		}
		if err := os.Remove(b.path("a")); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			tick()
		}
		b.put("a", []byte("2"))
		tick()
		if got := strings.Join(taken, ","); got != "1,2,2" || b.state("pair").Failures != 2 {
			t.Errorf("taken %s, %+v", got, b.state("pair"))
		}
		b.w.Close()
	})
}

// TestWarns speaks of a certificate a week before it ends, once a day.
func TestWarns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, time.Hour)
		b.put("n1.pem", b.issue(b.ca, certs.Subject{Node: "n1", Life: 10 * 24 * time.Hour}))
		if _, err := OpenAPI(b.w, Files{Cert: b.path("n1.pem")}, ""); err != nil {
			t.Fatal(err)
		}
		after := func(d time.Duration, soon, ended int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if s, e := b.log.count("ends soon"), b.log.count("has ended"); s != soon || e != ended {
				t.Errorf("told %d times that it ends soon and %d times that it has ended, want %d and %d", s, e, soon, ended)
			}
		}
		day := 24 * time.Hour
		after(2*day+23*time.Hour, 0, 0)
		after(2*time.Hour, 1, 0)
		after(2*day, 3, 0)
		after(4*day+20*time.Hour, 7, 0)
		after(day, 7, 1)
		b.put("n1.pem", b.issue(b.ca, certs.Subject{Node: "n1"}))
		after(30*day, 7, 1)
		b.w.Close()
	})
}
