package consensus

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// TestHeardBefore has the order in which entries of several terms may come.
func TestHeardBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var h heard
		want := func(term uint64, at time.Duration) {
			t.Helper()
			if got := h.before(term).Sub(start); got != at {
				t.Errorf("at %v: the last entry before term %d came at %v, want %v", time.Since(start), term, got, at)
			}
		}
		come := func(terms ...uint64) {
			time.Sleep(time.Second)
			var list []*raft.Log
			for _, term := range terms {
				list = append(list, &raft.Log{Term: term})
			}
			h.entries(list)
		}
		h.all() // the process starts: the log holds anything
		want(1, 0)
		want(9, 0)
		come(2)
		come(2)
		want(2, 0)
		want(3, 2*time.Second)
		come(4) // a leader's own first entry
		want(4, 2*time.Second)
		come(4)
		want(4, 2*time.Second)
		want(5, 4*time.Second)
		come(3, 5) // what another leader has of the terms between, in place of ours
		want(5, 5*time.Second)
		come(5)
		want(5, 5*time.Second)
		want(6, 6*time.Second)
		time.Sleep(time.Second)
		h.all() // a snapshot
		want(5, 7*time.Second)
		come(8)
		want(8, 7*time.Second)
	})
}

// TestHeard: a new leader tells when the last entry of the one before came, and a
// leader that goes on in its own term tells no such time.
func TestHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		l := f.form(3)
		time.Sleep(3 * time.Second)
		if err := f.propose(l, "last", time.Second); err != nil {
			t.Fatal(err)
		}
		last := time.Now()
		time.Sleep(200 * time.Millisecond)
		f.stop(l.id)
		next := f.leader(10*time.Second, l.id)
		now, _ := next.node.Leadership()
		if d := now.Heard.Sub(last); d < -50*time.Millisecond || d > 0 || now.Since.Sub(now.Heard) < 200*time.Millisecond {
			t.Errorf("leads since %v after the last entry, which came at %v", now.Since.Sub(last), d)
		}
		time.Sleep(time.Second)
		next.node.leading.Store(false)
		next.node.setLeadership(Leadership{Term: now.Term})
		next.node.resume <- struct{}{}
		f.leader(time.Second, l.id)
		if again, _ := next.node.Leadership(); again.Term != now.Term || again.Heard != again.Since {
			t.Errorf("goes on in term %d: heard %v before that", again.Term, again.Since.Sub(again.Heard))
		}
	})
}
