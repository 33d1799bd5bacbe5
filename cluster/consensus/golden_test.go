package consensus

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/facetd/facetd/cluster"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGoldenMessages holds still what founders ask each other, what they keep on disk of
// it, and how connections of Raft begin. Of another version nothing is read.
func TestGoldenMessages(t *testing.T) {
	id := func(b byte) (id [16]byte) {
		for i := range id {
			id[i] = b + byte(i)
		}
		return id
	}
	f := &founders{Cluster: cluster.ID(id(0x10)), Round: 7, Members: []founder{{"n1", LogID(id(0x20)), "10.0.0.1:7401"}, {"n2", LogID(id(0x30)), "10.0.0.2:7401"}}}
	q := question{from: "n1", pledge: f}
	a := identityAnswer{node: "n2", log: LogID(id(0x30)), cluster: f.Cluster, generation: 2, expect: 3, round: 7,
		verdict: pledgeGiven, sees: []cluster.NodeID{"n1", "n2"}, pledged: f}
	var out strings.Builder
	for _, m := range []struct {
		name   string
		b      []byte
		decode func(b []byte) error
	}{
		{"question", q.encode(), func(b []byte) error { _, err := decodeQuestion(b); return err }},
		{"answer", a.encode(), func(b []byte) error { _, err := decodeAnswer(b); return err }},
		{"pledge", encodePledge(9, f), func(b []byte) error { _, _, err := decodePledge(b); return err }},
		{"preface", preface(f.Cluster, 2, "n1", "n2", LogID(id(0x30))), nil},
	} {
		fmt.Fprintf(&out, "%s %s\n", m.name, hex.EncodeToString(m.b))
		if m.decode == nil {
			continue
		}
		if err := m.decode(m.b); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		later := bytes.Clone(m.b)
		later[1]++
		if err := m.decode(later); err == nil || !strings.Contains(err.Error(), "version 2") {
			t.Errorf("%s of a later version: %v", m.name, err)
		}
	}
	file := filepath.Join("testdata", "messages.txt")
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("messages are\n%s%s has\n%s", out.String(), file, want)
	}
}
