package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"regexp"
	"sync"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

type config struct {
	servers     []string
	tls         *tls.Config
	sign        *signer
	operatorKey string
	tokenLife   time.Duration
	lookEvery   time.Duration
	freezeAt    uint64
}

// own is the tenant of the platform itself.
const own = "platform"

const schema = `
CREATE TABLE IF NOT EXISTS customer (tenant TEXT PRIMARY KEY, plan TEXT NOT NULL, key_hash BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS app (tenant TEXT NOT NULL, name TEXT NOT NULL, program TEXT NOT NULL, PRIMARY KEY (tenant, name)) STRICT;`

// plans are what customers pay for, as limits of facetd.
var plans = map[string]map[string]uint64{
	"free": {
		"facets": 100, "facet_bytes": 64 << 20, "total_bytes": 256 << 20, "requests_per_second": 50,
		"rows_per_second": 10_000, "concurrent_requests": 16, "statement_ms": 2_000, "memory_bytes": 16 << 20,
	},
	"paid": {
		"facets": 100_000, "facet_bytes": 1 << 30, "total_bytes": 100 << 30, "requests_per_second": 2_000,
		"rows_per_second": 500_000, "concurrent_requests": 256, "statement_ms": 10_000, "memory_bytes": 64 << 20,
	},
}

// platform has the key, and the clients that apps never see.
type platform struct {
	cfg        config
	supervisor *client.Client
	registry   *client.Client
	customers  *client.Facet // of registry
	apps       pool

	mu   sync.Mutex
	live map[string]time.Time // until when a tenant has a token that is good; guarded by mu
}

func newPlatform(ctx context.Context, cfg config) (*platform, error) {
	p := &platform{cfg: cfg, live: make(map[string]time.Time)}
	p.apps.open = p.openApp
	var err error
	if p.supervisor, err = p.dial(ctx, claims{Tenant: "*", Facets: []string{"*"}, Access: "admin", Subject: "platform"}, 0); err != nil {
		return nil, err
	}
	if p.registry, err = p.dial(ctx, claims{Tenant: own, Facets: []string{"registry"}, Access: "rw", Subject: "platform"}, 0); err != nil {
		p.close()
		return nil, err
	}
	if p.customers, err = p.registry.Facet(own + "/registry"); err == nil {
		p.customers = p.customers.Idempotent()
		err = p.customers.Script(ctx, schema)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("open the registry: %w", err)
	}
	return p, nil
}

func (p *platform) close() {
	p.apps.close()
	for _, c := range []*client.Client{p.supervisor, p.registry} {
		if c != nil {
			c.Close()
		}
	}
}

// dial opens a client with a token of its own, signed anew whenever the SDK asks: before
// every connection, and before the token of a connection ends.
func (p *platform) dial(ctx context.Context, c claims, maxResult int) (*client.Client, error) {
	return client.Open(ctx, p.cfg.servers, client.Options{
		TLS: p.cfg.tls, Software: c.Subject, MaxResult: maxResult,
		TokenSource: func(context.Context) (string, error) {
			tok, _, err := p.mint(c)
			return tok, err
		},
	})
}

// mint signs a token, and notes that the tenant is active as long as it is good.
func (p *platform) mint(c claims) (string, time.Time, error) {
	tok, expires, err := p.cfg.sign.token(c, p.cfg.tokenLife)
	if err == nil && c.Tenant != "*" && c.Tenant != own {
		p.mu.Lock()
		p.live[c.Tenant] = expires
		p.mu.Unlock()
	}
	return tok, expires, err
}

// appID names an app. Names have no dots, so that "guest" does not reach what is
// "guestbook.main": the facets of an app are what begins with its name and a dot.
type appID struct{ tenant, name string }

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,40}$`) // of tenants and apps

// claims are what the token of an app says. It reads and writes; it does not
// delete or import, and the cluster is nothing to it.
func (id appID) claims() claims {
	return claims{Tenant: id.tenant, Facets: []string{id.name + ".*"}, Access: "rw", Subject: id.tenant + "." + id.name}
}

// maxAppResult bounds what one request of an app takes of the platform's memory.
const maxAppResult = 1 << 20

func (p *platform) openApp(ctx context.Context, id appID) (*client.Client, Databases, error) {
	c, err := p.dial(ctx, id.claims(), maxAppResult)
	if err != nil {
		return nil, nil, err
	}
	b, err := c.Bind(id.tenant)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, databases{b}, nil
}

// databases are those of one app, by way of the app's own client.
type databases struct{ binding *client.Binding }

func (d databases) Run(ctx context.Context, name string, stmts ...client.Stmt) ([]client.StepResult, error) {
	f, err := d.binding.Facet(name)
	if err != nil {
		return nil, errNoDatabase // not even a name
	}
	res, err := f.Batch(ctx, stmts...)
	if errors.Is(err, facet.ErrNotFound) {
		err = errNoDatabase
	}
	return res, err
}

// putCustomer makes a customer, or gives one another plan and another key. The quotas
// are in force before anybody has the key.
func (p *platform) putCustomer(ctx context.Context, tenant, plan string) (key string, err error) {
	limits, ok := plans[plan]
	if !ok || tenant == own || !validName.MatchString(tenant) {
		return "", facet.Errorf(facet.CodeBadRequest, "a customer has a name of a-z, 0-9 and -, and the plan free or paid")
	}
	var change client.TenantChange
	for name, value := range limits {
		if err := change.Set(name, value); err != nil {
			return "", err
		}
	}
	if _, err := p.supervisor.SetTenant(ctx, tenant, change); err != nil {
		return "", err
	}
	key = rand.Text()
	hash := sha256.Sum256([]byte(key))
	_, err = p.customers.Exec(ctx, `INSERT INTO customer VALUES (?, ?, ?)
		ON CONFLICT (tenant) DO UPDATE SET plan = excluded.plan, key_hash = excluded.key_hash`, tenant, plan, hash[:])
	return key, err
}

// customer is whose key it is.
func (p *platform) customer(ctx context.Context, key string) (tenant string, err error) {
	hash := sha256.Sum256([]byte(key))
	err = p.customers.QueryRow(ctx, "SELECT tenant FROM customer WHERE key_hash = ?", hash[:]).Scan(&tenant)
	return tenant, err
}

func (p *platform) putApp(ctx context.Context, id appID, src []byte) error {
	if !validName.MatchString(id.name) {
		return facet.Errorf(facet.CodeBadRequest, "an app has a name of a-z, 0-9 and -")
	}
	if _, err := parseProgram(src); err != nil {
		return err
	}
	_, err := p.customers.Exec(ctx, "INSERT INTO app VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET program = excluded.program", id.tenant, id.name, string(src))
	return err
}

var errNoApp = errors.New("there is no such app")

// program is the code of an app, as it was last put.
func (p *platform) program(ctx context.Context, id appID) (*program, error) {
	var src string
	err := p.customers.QueryRow(ctx, "SELECT program FROM app WHERE tenant = ? AND name = ?", id.tenant, id.name).Scan(&src)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, errNoApp
	case err != nil:
		return nil, err
	}
	return parseProgram([]byte(src))
}

// run has an app answer a visitor.
func (p *platform) run(ctx context.Context, id appID, route string, params map[string]any) (*result, error) {
	prog, err := p.program(ctx, id)
	if err != nil {
		return nil, err
	}
	var res *result
	err = p.apps.use(ctx, id, func(dbs Databases) (err error) {
		res, err = prog.serve(ctx, dbs, route, params)
		return err
	})
	return res, err
}

// patience is after how many looks in a row, with freezeAt requests a second refused, a
// tenant is frozen.
const patience = 3

// watch freezes tenants that do not stop when they are told to. Quotas hold them anyway;
// a freeze ends the work of telling them, and somebody looks at what they do.
func (p *platform) watch(ctx context.Context) {
	strikes := make(map[string]int)
	tick := time.NewTicker(p.cfg.lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		active := p.active()
		for tenant := range strikes {
			if _, ok := active[tenant]; !ok {
				delete(strikes, tenant)
			}
		}
		for tenant := range active {
			t, err := p.supervisor.Tenant(ctx, tenant)
			switch {
			case err != nil:
				log.Printf("look at %s: %v", tenant, err)
			case t.Frozen != "no" || t.Use.RefusedPerSecond < p.cfg.freezeAt:
				delete(strikes, tenant)
			default:
				if strikes[tenant]++; strikes[tenant] < patience {
					continue
				}
				if _, err := p.supervisor.FreezeTenant(ctx, tenant, false); err != nil {
					log.Printf("freeze %s: %v", tenant, err)
					continue
				}
				log.Printf("froze %s: %d requests a second were refused", tenant, t.Use.RefusedPerSecond)
			}
		}
	}
}

// clockSkew is how much longer than it says nodes may take a token for good.
const clockSkew = 30 * time.Second

// active are the tenants that may be at work: those with a token that is good.
func (p *platform) active() map[string]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make(map[string]struct{}, len(p.live))
	for tenant, until := range p.live {
		if time.Since(until) > clockSkew {
			delete(p.live, tenant)
			continue
		}
		list[tenant] = struct{}{}
	}
	return list
}
