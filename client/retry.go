package client

import (
	"time"

	"github.com/facetd/facetd/facet"
)

// effect says what a second execution of a request would do.
type effect uint8

const (
	effRead   effect = iota // nothing: reads, BEGIN, ROLLBACK
	effKeyed                // nothing: the idempotency key stops it
	effWrite                // it would happen twice
	effInTx                 // statement of a transaction that dies with its connection
	effCommit               // COMMIT of one
)

// stage says how far a try came.
type stage uint8

const (
	notSent  stage = iota // no byte of it left: dial failed, connection was gone
	answered              // the node answered with an error
	lost                  // it was sent and the connection ended before the answer
	expired               // it was sent and the context ended before the answer
	dropped               // the context ended before it was sent
)

// attempt is one failed try, and what happened before it.
type attempt struct {
	effect    effect
	stage     stage
	code      facet.Code    // answered only
	hint      time.Duration // the node's retry hint
	try       int           // tries before this one
	pauses    int           // pauses before this one
	redirects int           // redirects in a row before this one
	detour    bool          // the redirect contradicts what is known, or leads nowhere
	freshKey  bool          // the key is one the SDK can exchange for another
	freshTok  bool          // the token is one the SDK can exchange for another
	maybe     bool          // an earlier try may have taken effect
	left      time.Duration // time left for retries
	jitter    float64       // [0, 1)
}

// action is what to do about a failed try.
type action uint8

const (
	giveUp   action = iota // return the error as it is
	again                  // try again after the pause, anywhere
	redirect               // try at the owner at once
	unknown                // return ErrUnknownOutcome
	txGone                 // return ErrTxClosed: the transaction died with its connection
)

func (a action) String() string {
	return [...]string{"give up", "again", "redirect", "unknown", "tx gone"}[a]
}

// decide is the retry policy, whole. maybe is to be remembered for later tries.
//
// Invariant: a request with effWrite or effCommit that may have taken effect is
// never sent again, and nothing that may have taken effect is reported as not
// done.
func decide(a attempt) (act action, pause time.Duration, maybe bool) {
	maybe = a.maybe || mayHaveHappened(a)
	act = verdict(a, maybe)
	if act == again {
		pause = backoff(a)
		if a.code == facet.CodeThrottled {
			pause += max(0, a.hint-maxHint) // before that the node refuses again, by its clock
		}
		if pause >= a.left || a.try+1 >= maxTries {
			act, pause = giveUp, 0
		}
	}
	if act == redirect && (a.left <= 0 || a.try+1 >= maxTries) {
		act = giveUp
	}
	if act == giveUp && maybe && unsettled(a) {
		act = unknown
	}
	return act, pause, maybe
}

// mayHaveHappened reports whether this try may have taken an effect that lasts.
func mayHaveHappened(a attempt) bool {
	switch a.effect {
	case effRead, effInTx:
		return false
	}
	return a.stage == lost || a.stage == expired || a.stage == answered && a.code.Class() == facet.Unknown
}

// verdict chooses as if time did not matter.
func verdict(a attempt, maybe bool) action {
	repeatable := a.effect == effRead || a.effect == effKeyed
	bound := a.effect == effInTx || a.effect == effCommit // to one connection and owner
	switch a.stage {
	case dropped, expired:
		return giveUp
	case notSent:
		if bound {
			return txGone
		}
		return again
	case lost:
		switch {
		case repeatable:
			return again
		case a.effect == effInTx:
			return txGone
		}
		return unknown
	}
	switch a.code.Class() {
	case facet.Retry:
		if a.code == facet.CodeDiskFull {
			return giveUp // a person has to make room; waiting only hides it
		}
		return again
	case facet.Redirect:
		switch {
		case bound:
			return txGone
		case a.redirects >= maxRedirects || a.detour:
			return again
		}
		return redirect
	case facet.Unknown:
		switch {
		case repeatable:
			return again
		case a.effect == effInTx:
			return txGone
		}
		return unknown
	}
	if a.code == facet.CodeUnauthorized && a.freshTok && !bound {
		return again // on a new connection: this one's token is over, nothing was executed
	}
	if a.code == facet.CodeKeyExpired && a.freshKey && !maybe {
		return again // with another key: this one was refused, not executed
	}
	return giveUp
}

// unsettled reports whether, with an earlier try that may have taken effect, the
// error of this one leaves open whether it did. Only an error from running the
// statement itself settles it: the node looked the key up before.
func unsettled(a attempt) bool {
	return a.stage != answered || a.code != facet.CodeSQL
}

// backoff doubles from backoffMin to backoffMax, with the upper half random; a
// node's hint is a lower bound.
func backoff(a attempt) time.Duration {
	d := backoffMax
	if a.pauses < 8 {
		d = min(backoffMax, backoffMin<<a.pauses)
	}
	d = d/2 + time.Duration(a.jitter*float64(d/2))
	return max(d, min(a.hint, maxHint))
}
