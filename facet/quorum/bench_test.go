package quorum

import (
	"testing"

	"github.com/facetd/facetd/facet"
)

// active makes a session of three that serves, with its barrier at 1.
func active(tb testing.TB) (*Session, [3]From) {
	set := members("a,b,c")
	s, err := NewSession(Row{Epoch: 1, Owner: BootID{'a'}, Next: set}, storeOf("a"), BootID{'a'})
	if err != nil {
		tb.Fatal(err)
	}
	var from [3]From
	for i, m := range set {
		from[i] = From{Slot: i, Store: m.Store, Boot: m.Boot}
		s.Promised(from[i], Promise{Epoch: 1})
	}
	s.Ready(0, nil)
	if err := s.Barrier(0, 1, 1, 64); err != nil {
		tb.Fatal(err)
	}
	s.Ready(0, nil)
	for i := range from {
		s.Acked(from[i], 0, 1, 1)
	}
	s.Applied(Row{Epoch: 1, Owner: BootID{'a'}, ActiveEpoch: 1})
	if s.Ready(0, nil); s.State() != Active {
		tb.Fatal(s.State())
	}
	return s, from
}

// TestAckPathDoesNotAllocate is about one commit on its way from Appended to
// ActCommitted.
func TestAckPathDoesNotAllocate(t *testing.T) {
	s, from := active(t)
	acts := make([]Action, 0, MaxActions)
	seq, now := facet.Seq(1), Instant(0)
	if n := testing.AllocsPerRun(1000, func() {
		seq++
		now += 1000
		if err := s.Appended(now, seq, 100); err != nil {
			t.Fatal(err)
		}
		acts = s.Ready(now, acts[:0])
		for i := range from {
			s.Acked(from[i], now, 1, seq)
		}
		acts = s.Ready(now, acts[:0])
		if s.Write(seq) != Send || s.Read(ReadGate{Seen: seq}, now, now+1) != Send {
			t.Fatal("not committed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestWindow holds Room and Appended to R32.
func TestWindow(t *testing.T) {
	s, from := active(t)
	for seq := facet.Seq(2); seq <= 1+MaxWindow; seq++ {
		if !s.Room() {
			t.Fatalf("no room for entry %v", seq)
		}
		if err := s.Appended(0, seq, 1); err != nil {
			t.Fatal(err)
		}
	}
	if s.Room() || s.Appended(0, 2+MaxWindow, 1) != ErrWindow {
		t.Error("entries without bound")
	}
	s.Acked(from[0], 0, 1, 500)
	s.Acked(from[1], 0, 1, 600)
	if !s.Room() || s.window.n != 1+MaxWindow-500 {
		t.Errorf("window of %d entries", s.window.n)
	}
	if err := s.Appended(0, 2+MaxWindow, MaxWindowBytes); err != nil || s.Room() {
		t.Error("bytes without bound")
	}
	s.Acked(from[2], 0, 1, 2+MaxWindow)
	s.Acked(from[1], 0, 1, 2+MaxWindow)
	if !s.Room() || s.window.bytes != 0 {
		t.Errorf("%d bytes in an empty window", s.window.bytes)
	}
}

// TestResume is hibernation: the session goes on in its epoch, and members that
// lag are found when there is something to send.
func TestResume(t *testing.T) {
	set := members("a,b,c")
	row := Row{Epoch: 3, Owner: BootID{'a'}, Active: set, Next: set, ActiveEpoch: 3}
	last := facet.Position{Epoch: 3, Seq: 9}
	if _, err := Resume(row, set[0].Store, BootID{'x'}, 0, 5, last); err == nil {
		t.Error("another process life went on in the epoch") // R2
	}
	stale := row
	stale.ActiveEpoch = 2
	if _, err := Resume(stale, set[0].Store, BootID{'a'}, 0, 5, last); err != ErrState {
		t.Errorf("a session that was never active went on: %v", err)
	}
	s, err := Resume(row, set[0].Store, BootID{'a'}, 0, 5, last)
	if err != nil {
		t.Fatal(err)
	}
	if acts := s.Ready(0, nil); len(acts) != 1 || acts[0].Kind != ActServe || s.Committed() != 9 {
		t.Errorf("resumed with %v at %v", acts, s.Committed())
	}
	if err := s.Appended(0, 10, 1); err != nil {
		t.Fatal(err)
	}
	if acts := s.Ready(0, nil); len(acts) != 3 {
		t.Errorf("%v", acts)
	}
	b := From{Slot: 1, Store: set[1].Store, Boot: set[1].Boot}
	s.Nacked(b, 0, Nack{Kind: NackGap, Epoch: 3, Seq: 10, Last: facet.Position{Epoch: 3, Seq: 6}})
	if acts := s.Ready(0, nil); len(acts) != 1 || acts[0].Seq != 7 {
		t.Errorf("a member that lags is sent %v", acts)
	}
	s.Acked(b, 0, 3, 7)
	if acts := s.Ready(0, nil); len(acts) != 1 || acts[0].Seq != 8 || acts[0].To != 10 {
		t.Errorf("and then %v", acts)
	}
}

// BenchmarkCommit is what the core costs a replicated commit.
func BenchmarkCommit(b *testing.B) {
	s, from := active(b)
	acts := make([]Action, 0, MaxActions)
	seq, now := facet.Seq(1), Instant(0)
	b.ReportAllocs()
	for b.Loop() {
		seq++
		now += 1000
		if err := s.Appended(now, seq, 100); err != nil {
			b.Fatal(err)
		}
		acts = s.Ready(now, acts[:0])
		for i := range from {
			s.Acked(from[i], now, 1, seq)
		}
		acts = s.Ready(now, acts[:0])
	}
}
