package peer

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
)

// TenantUse is what a tenant uses at the node that answers USE.
type TenantUse struct {
	Applied uint64       // placement index the node has applied
	Freeze  facet.Freeze // as of then

	Facets   uint64 // it owns
	Open     uint64 // of them
	Bytes    uint64 // of the facets it owns
	Granted  uint64 // bytes they may grow by without asking
	Memory   uint64
	UnderWay uint64 // requests
	Requests uint64 // of the last second, as the next two
	Refused  uint64
	Rows     uint64
}

func (u *TenantUse) numbers() [9]*uint64 {
	return [...]*uint64{&u.Facets, &u.Open, &u.Bytes, &u.Granted, &u.Memory, &u.UnderWay, &u.Requests, &u.Refused, &u.Rows}
}

// Meter tells what tenants use here.
type Meter interface {
	// TenantUse may walk over all facets of the tenant.
	TenantUse(facet.Tenant) TenantUse
}

func appendUse(dst []byte, tenant facet.Tenant) []byte {
	return append(append(dst, byte(len(tenant))), tenant...)
}

func decodeUse(body []byte) (facet.Tenant, error) {
	d := decoder{src: body}
	s := string(d.take("tenant", int(d.u8("tenant"))))
	var tenant facet.Tenant
	if d.err == nil {
		var err error
		if tenant, err = facet.ParseTenant(s); err != nil {
			d.err = fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	return tenant, d.end("use")
}

func appendUsed(dst []byte, u *TenantUse) []byte {
	dst = binary.BigEndian.AppendUint64(appendOutcome(dst, nil), u.Applied)
	dst = append(dst, byte(u.Freeze))
	for _, v := range u.numbers() {
		dst = binary.BigEndian.AppendUint64(dst, *v)
	}
	return dst
}

func decodeUsed(body []byte) (u TenantUse, answer, err error) {
	d := decoder{src: body}
	if answer = d.outcome(); answer != nil {
		return u, answer, d.end("used")
	}
	u.Applied, u.Freeze = d.u64("applied"), facet.Freeze(d.u8("freeze"))
	if !u.Freeze.Known() {
		d.fail("freeze")
	}
	for _, v := range u.numbers() {
		*v = d.u64("number")
	}
	return u, nil, d.end("used")
}

// TenantUse asks what a tenant uses at the peer. ErrBusy says that it has many such
// questions under way, ErrRefused that it is starting.
func (p *Peer) TenantUse(ctx context.Context, tenant facet.Tenant) (TenantUse, error) {
	return ask(ctx, p, "use", 1, func(l *link) (u TenantUse, err error) {
		var answer error
		err = l.ask(ctx, typeUse, typeUsed, 1+len(tenant),
			func(dst []byte) []byte { return appendUse(dst, tenant) },
			func(f wire.Frame) (bool, error) {
				var err error
				u, answer, err = decodeUsed(f.Body)
				return true, err
			})
		if err == nil {
			err = answer
		}
		return u, err
	})
}

// use answers one USE in a goroutine of the transport.
func (c *Caller) use(id uint32, tenant facet.Tenant) {
	var meter Meter
	if c.t.cfg.Meter != nil {
		meter = c.t.cfg.Meter()
	}
	refuse := func(err error) { c.whole(typeUsed, 0, id, appendOutcome(nil, err)) }
	if meter == nil {
		refuse(ErrRefused)
		return
	}
	if c.metering.Add(1) > maxUses {
		c.metering.Add(-1)
		refuse(ErrBusy)
		return
	}
	c.t.wg.Go(func() {
		u := meter.TenantUse(tenant)
		c.metering.Add(-1)
		c.whole(typeUsed, 0, id, appendUsed(nil, &u))
	})
}
