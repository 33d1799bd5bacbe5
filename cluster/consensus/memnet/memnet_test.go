package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func pair(t *testing.T, n *Network) (near, far net.Conn) {
	t.Helper()
	l := n.Host("b").Listen()
	near, err := n.Host("a").Dial(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.Latency(10*time.Millisecond, 5*time.Millisecond, 0.2)
		near, far := pair(t, n)
		want := strings.Repeat("0123456789", 300_000) // more than a pipe holds
		go func() {
			for rest := want; rest != ""; {
				k := min(len(rest), 70_000)
				if _, err := io.WriteString(near, rest[:k]); err != nil {
					t.Error(err)
				}
				rest = rest[k:]
			}
			near.Close()
		}()
		start := time.Now()
		got, err := io.ReadAll(far)
		if err != nil || string(got) != want {
			t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
		}
		if took := time.Since(start); took < 10*time.Millisecond {
			t.Errorf("took %v, less than the latency", took)
		}
		if _, err := near.Write([]byte("x")); err == nil {
			t.Error("wrote to a closed connection")
		}
		far.Close()
	})
}

func TestCutHoldsBytesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		near, far := pair(t, n)
		n.Cut("a", "b")
		if _, err := near.Write([]byte("held")); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Write([]byte("back")); err != nil { // the other direction works
			t.Fatal(err)
		}
		b := make([]byte, 10)
		if k, err := near.Read(b); err != nil || string(b[:k]) != "back" {
			t.Errorf("read %q, %v", b[:k], err)
		}
		far.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := far.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read through a cut: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Host("a").Dial(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial through a cut: %v", err)
		}
		far.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Hour, n.HealAll)
		if k, err := far.Read(b); err != nil || string(b[:k]) != "held" {
			t.Errorf("after healing: %q, %v", b[:k], err)
		}
		near.Close()
		far.Close()
	})
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		near, far := pair(t, n)
		time.AfterFunc(time.Minute, func() { n.Kill("b") })
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, errReset) {
			t.Errorf("read from a dead host: %v", err)
		}
		if _, err := far.Write([]byte("x")); !errors.Is(err, errReset) {
			t.Errorf("write at a dead host: %v", err)
		}
		if _, err := n.Host("a").Dial(t.Context(), "b"); !errors.Is(err, errRefused) {
			t.Errorf("dial a dead host: %v", err)
		}
		if len(n.pipes) != 0 {
			t.Errorf("%d pipes left", len(n.pipes))
		}
		near, far = pair(t, n)
		near.Close()
		far.Close()
	})
}

func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		for _, h := range []string{"a", "b", "c"} {
			defer n.Host(h).Listen().Close()
		}
		n.Partition([]string{"a", "b"}, []string{"c"})
		for _, to := range []string{"b", "c"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			c, err := n.Host("a").Dial(ctx, to)
			cancel()
			if (err == nil) != (to == "b") {
				t.Errorf("dial %s: %v", to, err)
			}
			if err == nil {
				c.Close()
			}
		}
	})
}

// TestResets: what was sent arrives, and then the connection is gone for both.
func TestResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		n.Latency(time.Millisecond, 0, 0)
		near, far := pair(t, n)
		n.Resets(1)
		if _, err := near.Write([]byte("sent")); err != nil {
			t.Fatal(err)
		}
		n.Resets(0)
		b := make([]byte, 10)
		if k, err := far.Read(b); err != nil || string(b[:k]) != "sent" {
			t.Errorf("read %q, %v", b[:k], err)
		}
		for _, c := range []net.Conn{near, far} {
			if _, err := c.Read(b); !errors.Is(err, errReset) {
				t.Errorf("read from a connection that was reset: %v", err)
			}
		}
	})
}
