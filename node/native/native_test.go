package native

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/native/nativetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var notes = facet.Name{Tenant: "acme", Facet: "notes"}

type server struct {
	*Server
	svc  *nativetest.Service
	addr string
}

func start(t *testing.T, svc *nativetest.Service, opt Options) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opt.Log = slog.New(slog.DiscardHandler)
	s := &server{Server: New(svc, opt), svc: svc, addr: l.Addr().String()}
	hs := &http.Server{Handler: s.Server}
	served := make(chan struct{})
	go func() { defer close(served); hs.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		svc.Release()
		s.Close(ctx)
		hs.Close()
		<-served
		svc.Wait()
	})
	return s
}

// peer is a client made of bytes.
type peer struct {
	t  *testing.T
	nc net.Conn
	br *bufio.Reader
}

func dialRaw(t *testing.T, s *server, header string) (*peer, string) {
	t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", wire.Path, header)
	p := &peer{t: t, nc: nc, br: bufio.NewReader(nc)}
	resp, err := http.ReadResponse(p.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	body := ""
	if resp.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(resp.Body)
		body = string(b)
	}
	return p, resp.Status + " " + body
}

const upgradeHeader = "Connection: keep-alive, Upgrade\r\nUpgrade: facet/1\r\n"

func connect(t *testing.T, s *server) *peer {
	t.Helper()
	p, status := dialRaw(t, s, upgradeHeader)
	if !strings.HasPrefix(status, "101") {
		t.Fatal(status)
	}
	p.write(wire.AppendHello(nil, wire.Hello{VersionMin: 1, VersionMax: 9}))
	if f := p.read(); f.Type != wire.TypeHelloOK {
		t.Fatalf("got %v", f.Type)
	} else if h, err := wire.DecodeHelloOK(f.Body); err != nil || h.Version != 1 || h.MaxInFlight == 0 {
		t.Fatalf("%+v, %v", h, err)
	}
	return p
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) request(id uint32, r facet.Request) {
	p.t.Helper()
	r.Name = notes
	p.write(wire.AppendRequest(nil, id, &r))
}

func step(sql string) []facet.Step { return []facet.Step{{SQL: []byte(sql), NoRows: true}} }

// next is the next frame, or the error of the socket.
func (p *peer) next() (wire.Frame, error) {
	head := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(p.br, head); err != nil {
		return wire.Frame{}, err
	}
	n := int(head[4])<<24 | int(head[5])<<16 | int(head[6])<<8 | int(head[7])
	whole := append(head, make([]byte, n)...)
	if _, err := io.ReadFull(p.br, whole[wire.HeaderLen:]); err != nil {
		return wire.Frame{}, err
	}
	f, _, err := wire.DecodeFrame(whole, wire.MaxFrame)
	return f, err
}

func (p *peer) read() wire.Frame {
	p.t.Helper()
	for {
		f, err := p.next()
		if err != nil {
			p.t.Fatal(err)
		}
		if f.Type != wire.TypePing { // on a slow machine the node asks for a sign of life
			return f
		}
	}
}

func (p *peer) wantError(id uint32, want error) {
	p.t.Helper()
	f := p.read()
	e, err := facet.DecodeError(f.Body)
	if f.Type != wire.TypeError || f.ID != id || err != nil || !errors.Is(e, want) {
		p.t.Fatalf("%v frame for %d: %v, %v; want %v for %d", f.Type, f.ID, e, err, want, id)
	}
}

func TestUpgradeRefused(t *testing.T) {
	s := start(t, &nativetest.Service{}, Options{MaxConns: 1})
	for _, h := range []string{"", "Upgrade: facet/1\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n"} {
		if _, status := dialRaw(t, s, h); !strings.HasPrefix(status, "426") || !strings.Contains(status, `"code":"bad_request"`) {
			t.Errorf("%q: %s", h, status)
		}
	}
	connect(t, s)
	if _, status := dialRaw(t, s, upgradeHeader); !strings.HasPrefix(status, "503") || !strings.Contains(status, `"code":"overloaded"`) {
		t.Errorf("over the limit of connections: %s", status)
	}
}

func TestPipelinedWithTheUpgrade(t *testing.T) {
	s := start(t, &nativetest.Service{}, Options{})
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	// A client in a hurry sends everything in one write.
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", wire.Path, upgradeHeader)
	b.Write(wire.AppendHello(nil, wire.Hello{VersionMin: 1, VersionMax: 1}))
	for id := uint32(1); id <= 50; id++ {
		b.Write(wire.AppendRequest(nil, id, &facet.Request{Name: notes, Steps: step("INSERT 1")}))
	}
	nc.Write(b.Bytes())
	p := &peer{t: t, nc: nc, br: bufio.NewReader(nc)}
	if _, err := http.ReadResponse(p.br, nil); err != nil {
		t.Fatal(err)
	}
	if f := p.read(); f.Type != wire.TypeHelloOK {
		t.Fatalf("got %v", f.Type)
	}
	for id := uint32(1); id <= 50; id++ { // the toy answers in order
		if f := p.read(); f.Type != wire.TypeResponse || f.ID != id {
			t.Fatalf("%v for %d, want %d", f.Type, f.ID, id)
		}
	}
}

func TestViolations(t *testing.T) {
	hello := wire.AppendHello(nil, wire.Hello{VersionMin: 1, VersionMax: 1})
	req := wire.AppendRequest(nil, 1, &facet.Request{Name: notes, Steps: step("WAIT")})
	for name, tc := range map[string]struct {
		bytes []byte
		code  facet.Code
	}{
		"request before hello": {req, facet.CodeBadRequest},
		"bad magic":            {wire.AppendPing(nil, wire.TypeHello, 0, []byte("nonsense nonsense")), facet.CodeBadRequest},
		"future version":       {wire.AppendHello(nil, wire.Hello{VersionMin: 7, VersionMax: 9}), facet.CodeVersion},
		"second hello":         {append(bytes.Clone(hello), hello...), facet.CodeBadRequest},
		"id twice":             {append(append(bytes.Clone(hello), req...), req...), facet.CodeBadRequest},
		"a server's frame":     {append(bytes.Clone(hello), wire.AppendEmpty(nil, wire.TypeHelloOK, 0)...), facet.CodeBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, &nativetest.Service{}, Options{})
			p, _ := dialRaw(t, s, upgradeHeader)
			p.write(tc.bytes)
			for {
				f, err := p.next()
				if err != nil {
					t.Fatalf("the connection ended without a reason: %v", err)
				}
				if f.Type != wire.TypeGoAway {
					continue
				}
				if e, err := facet.DecodeError(f.Body); err != nil || e.Code != tc.code {
					t.Fatalf("%v, %v", e, err)
				}
				break
			}
			if _, err := p.next(); err == nil {
				t.Fatal("the connection goes on")
			}
		})
	}
}

func TestBadRequestIsAnswered(t *testing.T) {
	s := start(t, &nativetest.Service{}, Options{})
	p := connect(t, s)
	p.write(wire.AppendPing(nil, wire.TypeRequest, 7, []byte{0xff}))
	p.wantError(7, facet.ErrBadRequest)
	p.write(wire.AppendRequest(nil, 8, &facet.Request{Name: facet.Name{Tenant: "UP", Facet: "x"}}))
	p.wantError(8, facet.ErrBadRequest)
	p.request(9, facet.Request{Steps: step("INSERT 1")})
	if f := p.read(); f.Type != wire.TypeResponse || f.ID != 9 {
		t.Fatalf("%v for %d", f.Type, f.ID)
	}
}

func TestInFlightLimit(t *testing.T) {
	s := start(t, &nativetest.Service{}, Options{MaxInFlight: 2})
	p := connect(t, s)
	p.request(1, facet.Request{Steps: step("WAIT")})
	p.request(2, facet.Request{Steps: step("WAIT")})
	p.request(3, facet.Request{Steps: step("INSERT 1")})
	p.wantError(3, facet.ErrOverloaded)
	p.write(wire.AppendEmpty(nil, wire.TypeCancel, 99)) // nobody: ignored
	p.write(wire.AppendEmpty(nil, wire.TypeCancel, 2))
	p.wantError(2, facet.ErrCanceled)
	p.request(2, facet.Request{Steps: step("INSERT 1")}) // the id is free again
	if f := p.read(); f.Type != wire.TypeResponse || f.ID != 2 {
		t.Fatalf("%v for %d", f.Type, f.ID)
	}
}

func TestInFlightBytes(t *testing.T) {
	s := start(t, &nativetest.Service{}, Options{})
	p := connect(t, s)
	p.nc.SetDeadline(time.Now().Add(30 * time.Second))
	big := facet.AppendBlob(facet.AppendBlob(nil, make([]byte, 15<<20)), make([]byte, 15<<20))
	for id := uint32(1); id <= 3; id++ {
		p.request(id, facet.Request{Steps: []facet.Step{{SQL: []byte("WAIT"), Args: big, NArgs: 2}}})
	}
	p.wantError(3, facet.ErrOverloaded)
}

func TestDisconnect(t *testing.T) {
	s := start(t, &nativetest.Service{}, Options{})
	p := connect(t, s)
	p.request(1, facet.Request{KeepTx: true, Steps: step("BEGIN")})
	f := p.read()
	part, err := wire.DecodeResponse(f)
	if err != nil || part.Tx.IsZero() || !s.svc.OpenTx(notes) {
		t.Fatalf("%+v, %v", part, err)
	}
	p.request(2, facet.Request{KeepTx: true, Tx: part.Tx, Steps: step("INSERT 1")})
	p.read()
	waiting := s.svc.Waiting()
	p.request(3, facet.Request{Steps: step("WAIT")})
	<-waiting
	p.nc.Close()
	s.Server.running.Wait() // the session ends once all of it is undone
	if s.svc.OpenTx(notes) || s.svc.Writes(notes) != 0 {
		t.Fatal("the transaction outlived its connection")
	}
}

// TestDisconnectDuringBegin: the answer that opens a transaction finds nobody.
func TestDisconnectDuringBegin(t *testing.T) {
	begun, gone := make(chan struct{}), make(chan struct{})
	svc := &nativetest.Service{Async: true}
	svc.After = func(r *facet.Request) {
		if string(r.Steps[0].SQL) == "BEGIN" {
			close(begun)
			<-gone
		}
	}
	s := start(t, svc, Options{})
	p := connect(t, s)
	p.request(1, facet.Request{KeepTx: true, Steps: step("BEGIN")})
	<-begun
	p.nc.Close()
	lost := func() bool {
		s.Server.mu.Lock()
		defer s.Server.mu.Unlock()
		for sess := range s.sessions {
			sess.mu.Lock()
			defer sess.mu.Unlock()
			return sess.lost
		}
		return false
	}
	for deadline := time.Now().Add(5 * time.Second); !lost(); {
		if time.Now().After(deadline) {
			t.Fatal("the session did not notice")
		}
		// The peer's close travels through the kernel; there is no event to wait for.
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
		}
	}
	close(gone)
	s.Server.running.Wait()
	svc.Wait()
	if svc.OpenTx(notes) {
		t.Fatal("the transaction outlived its connection")
	}
}

func TestClientThatDoesNotRead(t *testing.T) {
	s := start(t, &nativetest.Service{}, Options{Conn: wire.ConnConfig{WriteTimeout: 200 * time.Millisecond}})
	p := connect(t, s)
	for id := uint32(1); id <= 1000; id++ {
		p.nc.SetWriteDeadline(time.Now().Add(5 * time.Second))
		r := facet.Request{Name: notes, ReadOnly: true, Steps: []facet.Step{{SQL: []byte("SELECT ROWS 1000 1000")}}}
		if _, err := p.nc.Write(wire.AppendRequest(nil, id, &r)); err != nil {
			break // it was cut off, or its requests are not read any more
		}
	}
	done := make(chan struct{})
	go func() { s.Server.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the connection of a client that does not read stays")
	}
}

func TestDrain(t *testing.T) {
	s := start(t, &nativetest.Service{}, Options{})
	p := connect(t, s)
	p.request(1, facet.Request{KeepTx: true, Steps: step("BEGIN")})
	part, err := wire.DecodeResponse(p.read())
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close(t.Context()) }()
	if f := p.read(); f.Type != wire.TypeGoAway {
		t.Fatalf("got %v", f.Type)
	}
	p.request(2, facet.Request{Steps: step("INSERT 1")})
	p.wantError(2, facet.ErrUnavailable)
	if _, status := dialRaw(t, s, upgradeHeader); !strings.HasPrefix(status, "503") {
		t.Errorf("a new connection: %s", status)
	}
	p.request(3, facet.Request{KeepTx: true, Tx: part.Tx, Steps: step("INSERT 1")})
	if f := p.read(); f.Type != wire.TypeResponse {
		t.Fatalf("a request of an open transaction: %v", f.Type)
	}
	p.request(4, facet.Request{KeepTx: true, Tx: part.Tx, Steps: step("COMMIT")})
	if f := p.read(); f.Type != wire.TypeResponse {
		t.Fatalf("its commit: %v", f.Type)
	}
	if err := <-closed; err != nil || s.svc.Writes(notes) != 1 {
		t.Fatalf("%v, %d writes", err, s.svc.Writes(notes))
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatalf("the second time: %v", err)
	}
}
