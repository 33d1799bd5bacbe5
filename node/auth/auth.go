package auth

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/internal/token"
)

const (
	// DefaultPoll is how often the file is read again. It bounds how long a revoked
	// token is good for where nobody sends a signal; reading a small file costs nothing.
	DefaultPoll = 2 * time.Second

	// maxKnown bounds the verified tokens that are remembered. One costs some hundred
	// bytes, and a token that is not among them some hundred microseconds.
	maxKnown = 8192
)

// Options of Open.
type Options struct {
	// File holds the keys (token.Keys). Needed.
	File string
	// Audience is what a token that names its audience must name.
	Audience string
	// Poll is how often the file is looked at. Default DefaultPoll.
	Poll time.Duration
	// Log is told of content that cannot be taken. Default: slog.Default().
	Log *slog.Logger
	// Audit is told of keys that are in force from now on. Default: Log.
	Audit *slog.Logger
}

// Keyring verifies tokens with the keys of a file.
type Keyring struct {
	opt   Options
	state atomic.Pointer[state]

	loading sync.Mutex        // held while the file is read and its content taken
	content [sha256.Size]byte // guarded by loading: what was looked at last, good or not
	changed func()            // guarded by loading: called when other keys are in force

	failures atomic.Int64
	stop     chan struct{}
	closing  sync.Once
	done     chan struct{}
}

// state is one content of the file and what was verified with it, so that nothing
// verified with other keys is ever believed.
type state struct {
	keys *token.Keys

	mu    sync.Mutex
	known map[[sha256.Size]byte]*token.Grant // by the token's hash
}

// Open reads the file and watches it. An unusable file is an error now; later the
// keys in force stay.
func Open(opt Options) (*Keyring, error) {
	if opt.Poll <= 0 {
		opt.Poll = DefaultPoll
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Audit == nil {
		opt.Audit = opt.Log
	}
	k := &Keyring{opt: opt, stop: make(chan struct{}), done: make(chan struct{})}
	if _, err := k.load(); err != nil {
		return nil, fmt.Errorf("read the keys of tokens: %w", err)
	}
	go k.watch()
	return k, nil
}

// OnChange has f called, from whatever goroutine noticed, when other keys are in
// force.
func (k *Keyring) OnChange(f func()) {
	k.loading.Lock()
	defer k.loading.Unlock()
	k.changed = f
}

// Close ends watching. It may be called twice.
func (k *Keyring) Close() {
	k.closing.Do(func() { close(k.stop) })
	<-k.done
}

func (k *Keyring) watch() {
	defer close(k.done)
	t := time.NewTicker(k.opt.Poll)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			k.Reload()
		case <-k.stop:
			return
		}
	}
}

// Reload reads the file now. What cannot be taken is logged, once, and the keys in
// force stay.
func (k *Keyring) Reload() {
	changed, err := k.load()
	switch {
	case err != nil && changed:
		k.failures.Add(1)
		k.opt.Log.Error("the file of keys cannot be used; the keys in force stay", "file", k.opt.File, "error", err)
	case changed:
		keys := k.state.Load().keys
		k.opt.Audit.Info("keys of tokens have changed", "audit", true, "action", "change keys", "outcome", "done", "file", k.opt.File, "keys", keys.Len(), "revoked", keys.Revoked())
		k.loading.Lock()
		f := k.changed
		k.loading.Unlock()
		if f != nil {
			f()
		}
	}
}

// load takes the file's content. changed tells whether it is other than the last
// time, good or not.
func (k *Keyring) load() (changed bool, err error) {
	k.loading.Lock()
	defer k.loading.Unlock()
	src, err := disk.ReadBounded(k.opt.File, token.MaxFile)
	look := sha256.Sum256(src)
	if err != nil {
		look = sha256.Sum256([]byte(err.Error()))
	}
	changed, k.content = look != k.content, look
	if !changed && k.state.Load() != nil {
		return false, err
	}
	if err != nil {
		return changed, err
	}
	keys, err := token.ParseKeys(src)
	if err != nil {
		return changed, fmt.Errorf("%s: %w", k.opt.File, err)
	}
	k.state.Store(&state{keys: keys, known: make(map[[sha256.Size]byte]*token.Grant)})
	return changed, nil
}

// Stats is for metrics.
type Stats struct {
	Keys, Revoked int
	Failures      int64 // contents of the file that could not be taken
}

// Stats tells how many keys are in force.
func (k *Keyring) Stats() Stats {
	keys := k.state.Load().keys
	return Stats{keys.Len(), keys.Revoked(), k.failures.Load()}
}

var errNoToken = facet.Errorf(facet.CodeUnauthorized, "a token is needed here")

// Verify tells what a token opens at the moment. The error is facet.ErrUnauthorized.
func (k *Keyring) Verify(tok string) (*token.Grant, error) {
	g, _, err := k.verify(tok)
	return g, err
}

func (k *Keyring) verify(tok string) (*token.Grant, *state, error) {
	st := k.state.Load()
	if tok == "" {
		return nil, st, errNoToken
	}
	if len(tok) > token.MaxToken {
		return nil, st, facet.Errorf(facet.CodeUnauthorized, "the token has more than %d bytes", token.MaxToken)
	}
	// By its hash, so that what is compared tells nothing about tokens that are known.
	id := sha256.Sum256([]byte(tok))
	now := time.Now()
	st.mu.Lock()
	g := st.known[id]
	st.mu.Unlock()
	if g != nil {
		return g, st, g.Check(now)
	}
	g, err := st.keys.Verify(tok, k.opt.Audience, now)
	if err != nil {
		return nil, st, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for old := range st.known {
		if len(st.known) < maxKnown {
			break
		}
		delete(st.known, old) // any: each costs one verification to have back
	}
	st.known[id] = g
	return g, st, nil
}

// Bearer is whoever shows one token for longer than one request: a connection. It
// is judged again at every use, by the keys and the moment of then.
type Bearer struct {
	ring  *Keyring
	token string
	by    atomic.Pointer[judged]
}

type judged struct {
	grant *token.Grant
	state *state
}

// Bearer verifies the token of a connection.
func (k *Keyring) Bearer(tok string) (*Bearer, error) {
	b := &Bearer{ring: k, token: tok}
	_, err := b.judge()
	return b, err
}

func (b *Bearer) judge() (*token.Grant, error) {
	g, st, err := b.ring.verify(b.token)
	if err != nil {
		return nil, err
	}
	b.by.Store(&judged{g, st})
	return g, nil
}

// Grant is what the token opens now.
func (b *Bearer) Grant() (*token.Grant, error) {
	if j := b.by.Load(); j != nil && j.state == b.ring.state.Load() {
		return j.grant, j.grant.Check(time.Now())
	}
	return b.judge()
}

// Check tells whether the token is good now.
func (b *Bearer) Check() error {
	_, err := b.Grant()
	return err
}

// Facet tells whether the bearer may reach the facet now, and whether only to read.
func (b *Bearer) Facet(name facet.Name) (readOnly bool, err error) {
	g, err := b.Grant()
	if err != nil {
		return true, err
	}
	switch g.Facet(name) {
	case token.None:
		return true, facet.NoSuchFacet(name) // it does not exist for him
	case token.Read:
		return true, nil
	}
	return false, nil
}

// Until is when the bearer has to go if nothing else happens; zero is never.
func (b *Bearer) Until() time.Time {
	g, err := b.Grant()
	if err != nil {
		return time.Now()
	}
	return g.Until()
}
