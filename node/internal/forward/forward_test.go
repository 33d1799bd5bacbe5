package forward

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/cluster/consensus/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func server(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

// pair is a node that carries everything to another; errs gets what Send said.
func pair(t *testing.T, owner http.HandlerFunc) (front *httptest.Server, errs chan error) {
	t.Helper()
	back := server(t, owner)
	f := New(Options{})
	errs = make(chan error, 10)
	front = server(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Request-Id", "id1")
		err = f.Send(w, r, body, back.URL)
		clear(body) // nobody reads it now
		if errs <- err; err != nil {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	t.Cleanup(f.Close) // before the servers, which wait for connections
	return front, errs
}

func TestSend(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789"), 1<<17)
	front, errs := pair(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.URL.RequestURI() != "/a/b?c=d" || r.Header.Get(HeaderHops) != "1" || r.Header.Get("X-Request-Id") != "id1" ||
			r.Header.Get("Authorization") != "Bearer x" || r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
			t.Errorf("%s %v %v", r.Proto, r.URL, r.Header)
		}
		w.Header().Set("X-Request-Id", "id1")
		w.WriteHeader(http.StatusAccepted)
		io.Copy(w, r.Body)
	})
	req, err := http.NewRequest(http.MethodPost, front.URL+"/a/b?c=d", bytes.NewReader(big))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"Authorization": "Bearer x", "Origin": "http://here", "Sec-Fetch-Site": "same-origin", "Connection": "close", "Expect": "100-continue"} {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, big) || resp.StatusCode != http.StatusAccepted || len(resp.Header.Values("X-Request-Id")) != 1 {
		t.Errorf("status %d, %d bytes, %v, %v", resp.StatusCode, len(got), resp.Header, err)
	}
	if err := <-errs; err != nil {
		t.Error(err)
	}
}

// A part of an answer leaves when it comes.
func TestAnswersAreFlushed(t *testing.T) {
	more := make(chan struct{})
	front, errs := pair(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first\n")
		http.NewResponseController(w).Flush()
		<-more
		io.WriteString(w, "second\n")
	})
	resp, err := http.Post(front.URL, "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != "first" {
		t.Fatalf("%q, %v", lines.Text(), lines.Err())
	}
	close(more)
	if !lines.Scan() || lines.Text() != "second" || lines.Scan() {
		t.Fatalf("%q, %v", lines.Text(), lines.Err())
	}
	if err := <-errs; err != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	f := New(Options{})
	defer f.Close()
	send := func(base, hops string) error {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set(HeaderHops, hops)
		w := httptest.NewRecorder()
		err := f.Send(w, r, []byte("x"), base)
		if err != nil && w.Body.Len() > 0 {
			t.Errorf("%v, and it answered %q", err, w.Body)
		}
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + l.Addr().String()
	l.Close()
	if err := send(refused, ""); !errors.Is(err, ErrUnsent) {
		t.Errorf("refused: %v", err)
	}
	for _, bad := range []string{"", "://", "node:7400"} {
		if err := send(bad, ""); !errors.Is(err, ErrUnsent) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	lost := server(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if err := send(lost.URL, ""); !errors.Is(err, ErrLost) {
		t.Errorf("aborted: %v", err)
	}
	ok := server(t, func(http.ResponseWriter, *http.Request) {})
	for hops, want := range map[string]error{"": nil, "2": nil, "junk": nil, "-5": nil, "3": ErrHops, "9": ErrHops} {
		if err := send(ok.URL, hops); !errors.Is(err, want) {
			t.Errorf("%q hops: %v", hops, err)
		}
	}
	f.underWay.Store(maxUnderWay)
	if err := send(ok.URL, ""); !errors.Is(err, ErrBusy) {
		t.Errorf("full: %v", err)
	}
	f.underWay.Store(0)
	f.Close()
}

// A node that vanishes is noticed, in a request and before one.
func TestVanishedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New(1)
		l := network.Host("b:1").Listen()
		srv := &http.Server{Protocols: new(http.Protocols)}
		srv.Protocols.SetUnencryptedHTTP2(true)
		arrived := make(chan struct{})
		srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(arrived)
			<-r.Context().Done()
		})
		served := make(chan struct{})
		go func() { defer close(served); srv.Serve(l) }()
		f := New(Options{Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return network.Host("a:1").Dial(ctx, addr)
		}})
		send := func() error {
			return f.Send(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil), []byte("x"), "http://b:1")
		}
		go func() {
			<-arrived
			network.Cut("a:1", "b:1")
			network.Cut("b:1", "a:1")
		}()
		begin := time.Now()
		if err := send(); !errors.Is(err, ErrLost) || time.Since(begin) > 2*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		begin = time.Now()
		if err := send(); !errors.Is(err, ErrUnsent) || time.Since(begin) > dialTimeout {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		f.Close()
		network.HealAll()
		srv.Close()
		<-served
	})
}
