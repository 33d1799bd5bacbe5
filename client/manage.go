package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
)

// Info is what the cluster tells about a facet.
type Info struct {
	Name      facet.Name
	Owner     string // node id
	OwnerURL  string
	Epoch     facet.Epoch
	Replicas  []string // node ids
	State     string
	SizeBytes int64 // -1 when the node that answered does not know
	Active    bool
	Pinned    bool // rebalancing leaves its owner alone
	// Incarnation is the id of the facet of that name: a name that was deleted and
	// made again has another.
	Incarnation string
	Lineage     *Lineage // nil for one that was made of no other facet
}

// Lineage says of which other facet a facet was made. Its JSON is that of the HTTP API.
type Lineage struct {
	Source   string `json:"source"`   // incarnation
	Position string `json:"position"` // of Source: what the facet began with
	// Lossy: it is what one surviving copy had, and acknowledged writes may be missing.
	Lossy bool `json:"lossy"`
}

// infoJSON is Info as the management API writes it.
type infoJSON struct {
	Tenant    string          `json:"tenant"`
	Facet     string          `json:"facet"`
	Owner     string          `json:"owner"`
	OwnerURL  string          `json:"owner_url"`
	Epoch     json.RawMessage `json:"epoch"` // a number, or a string of digits
	Replicas  []string        `json:"replicas"`
	State     string          `json:"state"`
	SizeBytes *int64          `json:"size_bytes"`
	Active    bool            `json:"active"`
	Pinned    bool            `json:"pinned"`
	ID        string          `json:"incarnation"`
	Lineage   *Lineage        `json:"lineage"`
}

func (j *infoJSON) info() (Info, error) {
	name, err := facet.NewName(j.Tenant, j.Facet)
	if err != nil {
		return Info{}, err
	}
	i := Info{Name: name, Owner: j.Owner, OwnerURL: j.OwnerURL, Replicas: j.Replicas, State: j.State, SizeBytes: -1, Active: j.Active, Pinned: j.Pinned, Incarnation: j.ID, Lineage: j.Lineage}
	if j.SizeBytes != nil {
		i.SizeBytes = *j.SizeBytes
	}
	if s := strings.Trim(string(j.Epoch), `"`); s != "" && s != "null" {
		if i.Epoch, err = facet.ParseEpoch(s); err != nil {
			return Info{}, fmt.Errorf("read epoch: %w", err)
		}
	}
	return i, nil
}

func newHTTP(o *Options) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, o.DialTimeout)
				defer cancel()
				return o.Dial(ctx, network, addr)
			},
			TLSClientConfig:       o.TLS,
			TLSHandshakeTimeout:   o.DialTimeout,
			ExpectContinueTimeout: 2 * time.Second,
			ResponseHeaderTimeout: 0, // an import answers when the whole file is checked
			IdleConnTimeout:       30 * time.Second,
			MaxIdleConnsPerHost:   2,
		},
		// Redirects are followed by hand: the token goes along, and a body that was
		// not read is sent again.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Stat tells about the facet; facet.ErrNotFound when it does not exist. It never
// creates one. Its size, and whether it is open, only the owner knows: Stat asks it
// when another node has answered, and does without where it cannot be reached.
func (f *Facet) Stat(ctx context.Context) (Info, error) {
	i, err := f.client.info(ctx, http.MethodGet, f.path(""), nil)
	if err == nil && i.SizeBytes < 0 && i.OwnerURL != "" && !(f.client.private && !isHTTPS(i.OwnerURL)) {
		if at, err := f.client.infoAt(ctx, i.OwnerURL+f.path("")); err == nil {
			i = at
		}
	}
	return i, f.wrap("stat", err)
}

// Create makes the facet without writing to it. One that exists already is fine.
func (f *Facet) Create(ctx context.Context) (Info, error) {
	i, err := f.client.info(ctx, http.MethodPut, f.path(""), nil)
	return i, f.wrap("create", err)
}

// Delete removes the facet. Its name is free again at once.
func (f *Facet) Delete(ctx context.Context) error {
	resp, err := f.client.manage(ctx, http.MethodDelete, f.path(""), nil)
	if err == nil {
		resp.Body.Close()
	}
	return f.wrap("delete", err)
}

// Export writes the facet, as it is at one moment, to w as a plain SQLite file.
// Writers are not stopped.
func (f *Facet) Export(ctx context.Context, w io.Writer) (int64, error) {
	resp, err := f.client.manage(ctx, http.MethodGet, f.path("/export"), nil)
	if err != nil {
		return 0, f.wrap("export", err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, resp.Body)
	if err == nil && resp.ContentLength >= 0 && n != resp.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	return n, f.wrap("export", err)
}

// Clone makes the facet to, "tenant/facet", with what this one holds now, and returns
// when it serves. It is a facet of its own then, without the idempotency keys of this
// one. facet.ErrExists where there is a facet of that name.
func (f *Facet) Clone(ctx context.Context, to string) (Info, error) {
	i, err := f.clone(ctx, to)
	return i, f.wrap("clone to "+to, err)
}

func (f *Facet) clone(ctx context.Context, to string) (Info, error) {
	dst, err := f.client.Facet(to)
	if err != nil {
		return Info{}, err
	}
	// A try whose answer is lost may have made it, and the next one finds that it is
	// there. If it was not there before, it was made of what this facet held since, by
	// whomever: that is what was asked for.
	_, before := dst.Stat(ctx)
	var j infoJSON
	err = f.client.operate(ctx, 0, http.MethodPost, f.path("/clone"), map[string]string{"to": to}, &j)
	if errors.Is(err, facet.ErrExists) && errors.Is(before, facet.ErrNotFound) {
		src, serr := f.Stat(ctx)
		i, derr := dst.Stat(ctx)
		if serr == nil && derr == nil && i.Lineage != nil && i.Lineage.Source == src.Incarnation {
			return i, nil
		}
	}
	if err != nil {
		return Info{}, err
	}
	return j.info()
}

// Import makes the facet from a SQLite file, which the node checks first. With
// replace an existing facet is exchanged as a whole; without, it is
// facet.ErrExists.
func (f *Facet) Import(ctx context.Context, file io.Reader, replace bool) (Info, error) {
	path := f.path("/import")
	if replace {
		path += "?replace=true"
	}
	i, err := f.client.info(ctx, http.MethodPut, path, file)
	return i, f.wrap("import", err)
}

// List gives the facets of the tenant after the given name, in name order.
func (b *Binding) List(ctx context.Context, after string) iter.Seq2[Info, error] {
	return b.client.List(ctx, b.tenant, after)
}

// List gives the facets of a tenant after the given name, in name order, a page
// at a time.
func (c *Client) List(ctx context.Context, tenant facet.Tenant, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for {
			page, more, err := c.ListPage(ctx, tenant, after, listPage)
			if err != nil {
				yield(Info{}, err)
				return
			}
			for _, i := range page {
				if !yield(i, nil) {
					return
				}
				after = i.Name.Facet
			}
			if !more || len(page) == 0 {
				return
			}
		}
	}
}

// ListPage gives at most limit facets of a tenant after the given name, in name
// order, and whether there are more.
func (c *Client) ListPage(ctx context.Context, tenant facet.Tenant, after string, limit int) (infos []Info, more bool, err error) {
	q := url.Values{"tenant": {string(tenant)}, "limit": {strconv.Itoa(limit)}}
	if after != "" {
		q.Set("after", after)
	}
	fail := func(err error) ([]Info, bool, error) { return nil, false, fmt.Errorf("list %v: %w", tenant, err) }
	resp, err := c.manage(ctx, http.MethodGet, "/v1/facets?"+q.Encode(), nil)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	var body struct {
		Facets []infoJSON `json:"facets"`
		More   bool       `json:"more"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxInfoBody)).Decode(&body); err != nil {
		return fail(fmt.Errorf("read answer: %w", err))
	}
	infos = make([]Info, len(body.Facets))
	for i := range body.Facets {
		if infos[i], err = body.Facets[i].info(); err != nil {
			return fail(err)
		}
	}
	return infos, body.More, nil
}

// path is the management path of the facet. Names need no escaping.
func (f *Facet) path(rest string) string {
	return "/v1/facets/" + string(f.name.Tenant) + "/" + f.name.Facet + rest
}

func (c *Client) info(ctx context.Context, method, path string, body io.Reader) (Info, error) {
	resp, err := c.manage(ctx, method, path, body)
	if err != nil {
		return Info{}, err
	}
	return readInfo(resp)
}

// infoAt asks one node once, for no longer than a dial may take.
func (c *Client) infoAt(ctx context.Context, target string) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.DialTimeout)
	defer cancel()
	resp, err := c.request(ctx, http.MethodGet, target, &once{})
	if err != nil {
		return Info{}, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return Info{}, refusal(resp)
	}
	return readInfo(resp)
}

func readInfo(resp *http.Response) (Info, error) {
	defer resp.Body.Close()
	var j infoJSON
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxInfoBody)).Decode(&j); err != nil {
		return Info{}, fmt.Errorf("read answer: %w", err)
	}
	return j.info()
}

// manage makes a management request, following redirects and trying again as any
// other request is: everything but an import may be done twice, and an import
// whose file was not read was not begun.
func (c *Client) manage(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	begin := time.Now()
	src := &once{r: body}
	n := c.home.Load()
	target := n.at.String() + path
	deleted := false // an earlier try may have
	for a := (attempt{}); ; a.try++ {
		resp, err := c.request(ctx, method, target, src)
		st := lost
		if err == nil {
			if resp.StatusCode < 300 {
				return resp, nil
			}
			st, err = answered, refusal(resp)
			resp.Body.Close()
		}
		if deleted && errors.Is(err, facet.ErrNotFound) {
			resp.StatusCode, resp.Body = http.StatusNoContent, http.NoBody
			return resp, nil
		}
		if a.effect = effRead; src.used() {
			a.effect = effWrite
		}
		a.observe(st, err, c.timeLeft(ctx, begin))
		var moved *movedError
		to := ""
		if errors.As(err, &moved) {
			to, a.detour = moved.to, moved.to == "" || moved.to == target
			if c.private && to != "" && !isHTTPS(to) {
				return nil, inTheClear(to)
			}
		}
		act, pause, _ := decide(a)
		if src.used() && act != unknown || c.ctx.Err() != nil {
			act = giveUp // the file cannot be read again
		}
		if act == again && ctx.Err() == nil {
			a.redirects, a.pauses = 0, a.pauses+1
			if st == lost || a.code == facet.CodeUnavailable || a.detour {
				if st == lost && method == http.MethodDelete {
					deleted = true
				}
				n = c.nodes.after(n)
				to = n.at.String() + path
			}
			if sleep(ctx, pause) == nil {
				if to != "" {
					target = to
				}
				continue
			}
		}
		if act == redirect {
			a.redirects++
			target = to
			continue
		}
		if st == lost {
			return nil, fmt.Errorf("%w: %w", facet.Errorf(lostCode(src), "reach %s", target), err)
		}
		return nil, err
	}
}

// movedError is a redirect over HTTP: to is the URL at the owner.
type movedError struct {
	*wireError
	to string
}

// wireError is facet.Error under a name that leaves its method Error visible.
type wireError = facet.Error

func (e *movedError) Unwrap() error { return e.wireError }

// refusal makes an error of an answer that is not a success. The body of a
// redirect is not needed to follow it.
func refusal(resp *http.Response) error {
	err := httpError(resp)
	if resp.StatusCode != http.StatusTemporaryRedirect {
		return err
	}
	moved := &movedError{wireError: facet.Errorf(facet.CodeNotOwner, "the owner is elsewhere")}
	errors.As(err, &moved.wireError)
	moved.Code = facet.CodeNotOwner
	if next, perr := resp.Request.URL.Parse(resp.Header.Get("Location")); perr == nil && (next.Scheme == "http" || next.Scheme == "https") {
		moved.to = next.String()
	}
	return moved
}

// lostCode is the code of a request that got no answer. Creating and deleting
// twice is harmless; an import that was sent may have happened.
func lostCode(src *once) facet.Code {
	if src.used() {
		return facet.CodeUnknownOutcome
	}
	return facet.CodeUnavailable
}

func (c *Client) request(ctx context.Context, method, target string, src *once) (*http.Response, error) {
	tok, err := c.opt.token(ctx)
	if err != nil {
		return nil, err
	}
	var body io.Reader = http.NoBody
	if src.r != nil {
		body = io.NopCloser(src) // hides it: net/http would guess a length otherwise
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if tok != "" {
		req.Header.Set("Authorization", "Bearer "+tok)
	}
	handOn(ctx, req.Header)
	if src.r != nil {
		req.Header.Set("Expect", "100-continue") // so that a redirect comes before the body
		req.Header.Set("Content-Type", "application/vnd.sqlite3")
		req.ContentLength = -1
		if b, ok := src.r.(*bytes.Reader); ok {
			req.ContentLength = int64(b.Len())
		}
	}
	return c.http.Do(req)
}

// once is a body that knows whether anything was read of it.
type once struct {
	r    io.Reader
	read atomic.Bool // net/http may still read when it returned
}

func (o *once) Read(p []byte) (int, error) { o.read.Store(true); return o.r.Read(p) }
func (o *once) used() bool                 { return o.read.Load() }
