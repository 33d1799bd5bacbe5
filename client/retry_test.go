package client

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
)

// TestDecide is the whole policy as a table: what each failed try leads to, by
// what a second execution would do.
func TestDecide(t *testing.T) {
	type row struct {
		name  string
		stage stage
		code  facet.Code
		maybe bool
		//    read, keyed, write, inTx, commit
		want [5]action
	}
	rows := []row{
		{"not sent", notSent, 0, false, [5]action{again, again, again, txGone, txGone}},
		{"lost", lost, 0, false, [5]action{again, again, unknown, txGone, unknown}},
		{"context ended, sent", expired, 0, false, [5]action{giveUp, unknown, unknown, giveUp, unknown}},
		{"context ended, not sent", dropped, 0, false, [5]action{giveUp, giveUp, giveUp, giveUp, giveUp}},
		{"sql error", answered, facet.CodeSQL, false, [5]action{giveUp, giveUp, giveUp, giveUp, giveUp}},
		{"forbidden", answered, facet.CodeForbidden, false, [5]action{giveUp, giveUp, giveUp, giveUp, giveUp}},
		{"busy", answered, facet.CodeBusy, false, [5]action{again, again, again, again, again}},
		{"overloaded", answered, facet.CodeOverloaded, false, [5]action{again, again, again, again, again}},
		{"unavailable", answered, facet.CodeUnavailable, false, [5]action{again, again, again, again, again}},
		{"disk full", answered, facet.CodeDiskFull, false, [5]action{giveUp, giveUp, giveUp, giveUp, giveUp}},
		{"throttled", answered, facet.CodeThrottled, false, [5]action{again, again, again, again, again}},
		{"frozen", answered, facet.CodeFrozen, false, [5]action{giveUp, giveUp, giveUp, giveUp, giveUp}},
		{"at a limit", answered, facet.CodeLimit, false, [5]action{giveUp, giveUp, giveUp, giveUp, giveUp}},
		{"not owner", answered, facet.CodeNotOwner, false, [5]action{redirect, redirect, redirect, txGone, txGone}},
		{"unknown outcome", answered, facet.CodeUnknownOutcome, false, [5]action{again, again, unknown, txGone, unknown}},
		{"internal", answered, facet.CodeInternal, false, [5]action{giveUp, giveUp, giveUp, giveUp, giveUp}},
		// After a try of a keyed write that may have taken effect. (Reads never
		// may; writes and commits are not tried again after one.)
		{"maybe, then key expired", answered, facet.CodeKeyExpired, true, [5]action{1: unknown}},
		{"maybe, then unauthorized", answered, facet.CodeUnauthorized, true, [5]action{1: unknown}},
		{"maybe, then sql error", answered, facet.CodeSQL, true, [5]action{1: giveUp}},
		{"maybe, then context ended", dropped, 0, true, [5]action{1: unknown}},
		{"maybe, then not sent", notSent, 0, true, [5]action{1: again}},
		{"maybe, then not owner", answered, facet.CodeNotOwner, true, [5]action{1: redirect}},
	}
	for _, r := range rows {
		for eff := effRead; eff <= effCommit; eff++ {
			if r.maybe && eff != effKeyed {
				continue
			}
			got, pause, _ := decide(attempt{effect: eff, stage: r.stage, code: r.code, maybe: r.maybe, left: time.Minute})
			if got != r.want[eff] {
				t.Errorf("%s, effect %d: %v, want %v", r.name, eff, got, r.want[eff])
			}
			if (got == again) != (pause > 0) {
				t.Errorf("%s, effect %d: %v after %v", r.name, eff, got, pause)
			}
		}
	}
}

func TestDecideBounds(t *testing.T) {
	again1 := attempt{stage: notSent, left: time.Minute}
	keyExpired := attempt{effect: effKeyed, stage: answered, code: facet.CodeKeyExpired, left: time.Minute}
	for _, tc := range []struct {
		name string
		edit func(*attempt)
		want action
	}{
		{"as it is", func(*attempt) {}, again},
		{"throttled for longer than there is time", func(a *attempt) {
			a.stage, a.code, a.hint, a.left = answered, facet.CodeThrottled, 20*time.Second, 10*time.Second
		}, giveUp},
		{"throttled for shorter", func(a *attempt) {
			a.stage, a.code, a.hint, a.left = answered, facet.CodeThrottled, 8*time.Second, 10*time.Second
		}, again},
		{"no time left", func(a *attempt) { a.left = 0 }, giveUp},
		{"pause longer than what is left", func(a *attempt) { a.pauses, a.left = 20, 10*time.Millisecond }, giveUp},
		{"too many tries", func(a *attempt) { a.try = maxTries }, giveUp},
		{"redirect loop pauses", func(a *attempt) { a.stage, a.code, a.redirects = answered, facet.CodeNotOwner, maxRedirects }, again},
		{"redirect that contradicts pauses", func(a *attempt) { a.stage, a.code, a.detour = answered, facet.CodeNotOwner, true }, again},
		{"key of the SDK expired", func(a *attempt) { *a = keyExpired; a.freshKey = true }, again},
		{"key of the SDK expired, maybe", func(a *attempt) { *a = keyExpired; a.freshKey, a.maybe = true, true }, unknown},
		{"key of the caller expired", func(a *attempt) { *a = keyExpired }, giveUp},
		{"redirect without time", func(a *attempt) { a.stage, a.code, a.left = answered, facet.CodeNotOwner, 0 }, giveUp},
		{"keyed, maybe, no time", func(a *attempt) { a.effect, a.maybe, a.left = effKeyed, true, 0 }, unknown},
		{"keyed, lost, no time", func(a *attempt) { a.effect, a.stage, a.left = effKeyed, lost, 0 }, unknown},
		{"read, lost, no time", func(a *attempt) { a.stage, a.left = lost, 0 }, giveUp},
	} {
		a := again1
		tc.edit(&a)
		if got, _, _ := decide(a); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	for pauses := range 100 {
		for _, jitter := range []float64{0, 0.999} {
			d := backoff(attempt{pauses: pauses, jitter: jitter})
			if d <= 0 || d > backoffMax {
				t.Errorf("pause %d takes %v", pauses, d)
			}
		}
	}
	if d := backoff(attempt{hint: time.Second}); d != time.Second {
		t.Errorf("a hint of a second waits %v", d)
	}
	if d := backoff(attempt{hint: time.Hour}); d > time.Minute {
		t.Errorf("a hint of an hour waits %v", d)
	}
}

// TestDecideNeverDoubles plays random failures and checks the invariant of
// decide against a model that knows the truth.
func TestDecideNeverDoubles(t *testing.T) {
	codes := []facet.Code{facet.CodeSQL, facet.CodeBusy, facet.CodeNotOwner, facet.CodeUnknownOutcome,
		facet.CodeUnavailable, facet.CodeForbidden, facet.CodeKeyExpired, facet.CodeTimeout}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		a := attempt{effect: effect(rng.IntN(5)), left: time.Minute}
		open := false // an earlier try may have taken a lasting effect
		for ; a.try < 20; a.try++ {
			a.stage, a.code = stage(rng.IntN(5)), 0
			if a.stage == answered {
				a.code = codes[rng.IntN(len(codes))]
			}
			a.left = time.Duration(rng.IntN(3)) * 300 * time.Millisecond
			lasting := a.effect == effWrite || a.effect == effCommit || a.effect == effKeyed
			if lasting && (a.stage == lost || a.stage == expired || a.code == facet.CodeUnknownOutcome) {
				open = true
			}
			act, _, maybe := decide(a)
			if act == again || act == redirect {
				if open && a.effect != effKeyed {
					t.Fatalf("%+v is sent again though it may have happened", a)
				}
				a.maybe = maybe
				if act == redirect {
					a.redirects++
				}
				continue
			}
			if open && act != unknown && a.code != facet.CodeSQL {
				t.Fatalf("%+v ends with %v though it may have happened", a, act)
			}
			break
		}
	}
}

func TestReads(t *testing.T) {
	for sql, want := range map[string]bool{
		"SELECT 1": true, " \n-- hello\nselect 1": true, "/* x */ VALUES (1)": true, "EXPLAIN SELECT 1": true,
		";; SELECT 1": true, "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a": false, "INSERT INTO t VALUES (1)": false,
		"SELECTED": false, "PRAGMA user_version": false, "": false, "--": false, "/*": false, "UPDATE t SET a=1": false,
		"REPLACE INTO t VALUES (1)": false, "select": true, "-- SELECT\nDELETE FROM t": false,
	} {
		if got := reads(sql); got != want {
			t.Errorf("reads(%q) = %v", sql, got)
		}
	}
}

func TestSeveral(t *testing.T) {
	for sql, want := range map[string]bool{
		"SELECT 1": false, "SELECT 1;": false, "SELECT 1; ": false, "SELECT 1; -- done": false, "SELECT 1; SELECT 2": true,
		"SELECT ';'": false, `SELECT ";" , [;], ` + "`;`": false, "SELECT 'it''s; ok'": false, "/* a; b */ SELECT 1": false,
		"-- a; b\nSELECT 1": false, "SELECT 1;;": false, "": false, "SELECT 1 /* open ; ": false, "SELECT 'open ; ": false,
		"CREATE TABLE a(x); CREATE TABLE b(x);": true, "SELECT 1 -- a\n; SELECT 2": true,
	} {
		if got := Several(sql); got != want {
			t.Errorf("Several(%q) = %v", sql, got)
		}
	}
}

// TestThrottledPause: a node that says when it will have room again is not asked before.
func TestThrottledPause(t *testing.T) {
	for _, hint := range []time.Duration{0, 3 * time.Millisecond, time.Second, 9 * time.Second} {
		_, pause, _ := decide(attempt{stage: answered, code: facet.CodeThrottled, hint: hint, left: time.Minute})
		if pause < hint || pause > hint+backoffMax {
			t.Errorf("told to wait %v, waits %v", hint, pause)
		}
	}
}
