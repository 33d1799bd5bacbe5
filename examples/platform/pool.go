package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/facetd/facetd/client"
)

// A token belongs to a client, so each app that is in use has a client of its own. What
// they take is bounded.
const (
	maxOpen   = 256 // apps with a client
	maxPerApp = 32  // requests of one app under way: a slow app holds up no other
)

var (
	errBusyApp = errors.New("the app has too many requests under way")
	errBusy    = errors.New("too many apps are in use")
)

// pool keeps the clients of the apps that were used last.
type pool struct {
	open func(context.Context, appID) (*client.Client, Databases, error)

	mu   sync.Mutex
	list map[appID]*opened // guarded by mu
}

type opened struct {
	once   sync.Once
	client *client.Client
	dbs    Databases
	err    error

	users int       // guarded by pool.mu
	last  time.Time // guarded by pool.mu
}

// use lends the databases of an app to do.
func (p *pool) use(ctx context.Context, id appID, do func(Databases) error) error {
	o, idle, err := p.take(id)
	if idle != nil {
		idle.close()
	}
	if err != nil {
		return err
	}
	defer p.give(o)
	o.once.Do(func() {
		if o.client, o.dbs, o.err = p.open(ctx, id); o.err != nil {
			p.forget(id, o) // the next request tries again
		}
	})
	if o.err != nil {
		return o.err
	}
	return do(o.dbs)
}

// take finds or makes the place of an app, in that of the one unused for longest, which
// the caller closes.
func (p *pool) take(id appID) (o, idle *opened, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o = p.list[id]; o == nil {
		if len(p.list) >= maxOpen {
			var oldest appID
			for k, x := range p.list {
				if x.users == 0 && (idle == nil || x.last.Before(idle.last)) {
					oldest, idle = k, x
				}
			}
			if idle == nil {
				return nil, nil, errBusy
			}
			delete(p.list, oldest)
		}
		if p.list == nil {
			p.list = make(map[appID]*opened)
		}
		o = new(opened)
		p.list[id] = o
	}
	if o.users >= maxPerApp {
		return nil, nil, errBusyApp
	}
	o.users++
	return o, idle, nil
}

func (p *pool) give(o *opened) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o.users--
	o.last = time.Now()
}

func (p *pool) forget(id appID, o *opened) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list[id] == o {
		delete(p.list, id)
	}
}

// close is called when nobody uses an app any more.
func (p *pool) close() {
	p.mu.Lock()
	list := p.list
	p.list = nil
	p.mu.Unlock()
	for _, o := range list {
		o.close()
	}
}

func (o *opened) close() {
	if o.client != nil {
		o.client.Close()
	}
}
