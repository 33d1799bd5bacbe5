package node_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// TestLaterVersions gives a node what a later release wrote, one file at a time. It must
// neither guess nor leave out what it does not know: it does not serve,
// and says what to do; the release that wrote it goes on with all of it.
func TestLaterVersions(t *testing.T) {
	patch := func(t *testing.T, file string, f func(b []byte) []byte) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, f(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		write func(t *testing.T, dir string)
		want  []string
	}{
		{"identity", func(t *testing.T, dir string) {
			patch(t, filepath.Join(dir, "node.json"), func(b []byte) []byte {
				return []byte(strings.Replace(string(b), `"format": 1`, `"format": 2`, 1))
			})
		}, []string{"format 2", "use the version that wrote it"}},
		{"segment of the commit log", func(t *testing.T, dir string) {
			patch(t, filepath.Join(dir, "data/log/00000001.seg"), func(b []byte) []byte {
				const block = 4096
				binary.BigEndian.PutUint32(b[8:], 2)
				binary.BigEndian.PutUint32(b[block-4:], crc32.Checksum(b[:block-4], castagnoli))
				return b
			})
		}, []string{"commit log", "version 2", "use the version that wrote it"}},
		{"record of the commit log", func(t *testing.T, dir string) {
			appendRecord(t, dir, commitlog.Record{Kind: 0x7E, Seq: 1, Payload: []byte("from later")})
		}, []string{"record of unknown kind 0x7e", "use the version that wrote it"}},
		{"entry of the placement log", func(t *testing.T, dir string) {
			appendEntry(t, dir, []byte{2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0})
		}, []string{"entry", "version 2", "use the version that wrote it"}},
		{"command in the placement log", func(t *testing.T, dir string) {
			body := []byte{0, 0, 0, 2, 200, 1}
			appendEntry(t, dir, append(binary.BigEndian.AppendUint32([]byte{1, 0, 0, 1}, crc32.Checksum(body, castagnoli)), body...))
		}, []string{"kind 200", "use the one that wrote it"}},
		{"snapshot of the placement table", func(t *testing.T, dir string) {
			writeSnapshot(t, dir, append([]byte("fctplace"), 0, 99, 0, 0))
		}, []string{"snapshot", "version 99", "use the version that wrote it"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := unpack(t, goldenDir)
			c.write(t, dir)
			cfg := node.Config{Dir: dir, Listen: "127.0.0.1:0", Insecure: true, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
			n, err := node.Open(t.Context(), cfg)
			if err == nil {
				// What the placement log says is carried out once the node leads.
				select {
				case err = <-n.Failed():
				case <-time.After(30 * time.Second):
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				n.Close(ctx) // a process exits instead
				cancel()
			}
			if err == nil {
				t.Fatal("the node serves")
			}
			if errors.Is(err, context.DeadlineExceeded) {
				t.Error("it noticed, and went on waiting")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v, which does not say %q", err, w)
				}
			}
		})
	}
}

// appendRecord writes a record behind those in the commit log of a directory.
func appendRecord(t *testing.T, dir string, r commitlog.Record) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	var id node.Identity
	if err := json.Unmarshal(raw, &id); err != nil {
		t.Fatal(err)
	}
	store, err := cluster.ParseStoreID(id.Store)
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := commitlog.Open(commitlog.Options{FS: disk.OS(filepath.Join(dir, "data")), Dir: "log", Store: store,
		Fatal: func(err error) { t.Error(err) }}, func(commitlog.Record, commitlog.Loc) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Append(r, 0, nil), l.Sync(t.Context()), l.Close()); err != nil {
		t.Fatal(err)
	}
}

// writeSnapshot makes the newest snapshot of the placement table in a directory.
func writeSnapshot(t *testing.T, dir string, data []byte) {
	t.Helper()
	store, err := raft.NewFileSnapshotStore(filepath.Join(dir, "raft"), 2, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_, transport := raft.NewInmemTransport("node-1")
	sink, err := store.Create(raft.SnapshotVersionMax, 20, 2, raft.Configuration{Servers: []raft.Server{{ID: "node-1", Address: "node-1"}}}, 1, transport)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
}

// appendEntry writes an entry behind those in the placement log of a directory.
func appendEntry(t *testing.T, dir string, data []byte) {
	t.Helper()
	store, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft/raft.bolt"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	last, err := store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	var l raft.Log
	if err := store.GetLog(last, &l); err != nil {
		t.Fatal(err)
	}
	if err := store.StoreLog(&raft.Log{Index: last + 1, Term: l.Term, Type: raft.LogCommand, Data: data}); err != nil {
		t.Fatal(err)
	}
}
