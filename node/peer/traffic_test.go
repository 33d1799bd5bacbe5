package peer

import (
	"bytes"
	"testing"
)

// TestTraffic counts at both ends of a connection, and finds the same.
func TestTraffic(t *testing.T) {
	n2 := start(t, "n2", newAddresses(), func(cfg *Config) {
		cfg.Answer = func(_ Remote, question []byte) ([]byte, error) { return append(question, question...), nil }
	})
	n1 := start(t, "n1", newAddresses(), nil)
	question := bytes.Repeat([]byte("q"), 1000)
	if answer, err := n1.Exchange(t.Context(), n2.Addr().String(), question); err != nil || len(answer) != 2000 {
		t.Fatalf("%d bytes, %v", len(answer), err)
	}
	// Once they are closed nobody counts any more.
	n1.Close()
	n2.Close()
	a, b := n1.Traffic(), n2.Traffic()
	if a.Sent != b.Received || a.Received != b.Sent {
		t.Errorf("one end counts %+v, the other %+v", a, b)
	}
	if a.Sent < 1000 || a.Received < 2000 || a.Sent > 1500 || a.Received > 2500 {
		t.Errorf("%+v for a question of 1000 bytes and an answer of 2000", a)
	}
}
