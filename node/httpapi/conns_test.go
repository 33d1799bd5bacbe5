package httpapi

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestConnectionsAreBounded: whoever opens connections without end keeps nobody out, and
// a request under way is not the one that goes.
func TestConnectionsAreBounded(t *testing.T) {
	const most = 4
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begun, release := make(chan struct{}), make(chan struct{})
	srv := NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(begun)
			<-release
		}
		io.WriteString(w, "ok")
	}), ServerOptions{MaxConns: most})
	go srv.Serve(ln)
	defer srv.Close()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		return c
	}
	ask := func(c net.Conn, path string) { fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path) }
	answer := func(c net.Conn) {
		t.Helper()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%v, %v", res, err)
		}
		res.Body.Close()
	}
	slow := dial()
	defer slow.Close()
	ask(slow, "/slow")
	<-begun
	var flood []net.Conn
	for range 5 * most {
		c := dial()
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nX: ") // and never ends
		flood = append(flood, c)
		// One that comes in the middle of the flood is served.
		mine := dial()
		ask(mine, "/")
		answer(mine)
		mine.Close()
	}
	for i, c := range flood[:len(flood)-most] {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("connection %d of the flood got an answer", i)
		} else if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Errorf("connection %d of the flood is still there", i)
		}
	}
	close(release)
	answer(slow)
}
