package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/facetd/facetd/client"
)

const (
	// askTimeout bounds one question: a node that needs longer is in trouble.
	askTimeout = 4 * time.Second

	// maxAnswer bounds one answer.
	maxAnswer = 8 << 20

	// maxNodes bounds the nodes that are asked.
	maxNodes = 64
)

// Asker asks nodes over HTTP.
type Asker struct {
	Client *http.Client
	Token  string
}

// Node is what one node answered. What it did not is zero.
type Node struct {
	URL     string
	ID      string // as the cluster knows it; empty for one nobody knows
	Err     error  // it could not be reached
	Cluster *client.Cluster
	// Denied is why it does not tell about the cluster: the token.
	Denied  string
	Failing []string           // checks of /readyz that fail
	Metrics map[string]float64 // by name; with one label also by name{value}
	Ahead   time.Duration      // of its clock against this machine's
	Within  time.Duration      // what Ahead is right to
	Open    bool               // it tells everything without a token
}

// Facts is all that was found out.
type Facts struct {
	Nodes      []Node // those that were named first
	Operations []client.Operation
}

// Ask asks the nodes of the URLs and all nodes they know of.
func (a *Asker) Ask(ctx context.Context, urls []string) Facts {
	f := Facts{Nodes: walk(urls, func(addr string) Node { return a.node(ctx, addr) })}
	for _, n := range f.Nodes {
		if n.Cluster == nil || n.Denied != "" {
			continue
		}
		var list struct{ Operations []client.Operation }
		if raw, _, err := a.get(ctx, n.URL+"/v1/operations", true); err == nil && json.Unmarshal(raw, &list) == nil {
			f.Operations = list.Operations
			break
		}
	}
	return f
}

// walk visits the nodes of the URLs and all nodes they know of, several at a time.
func walk(urls []string, visit func(addr string) Node) (nodes []Node) {
	ids := map[string]string{} // by URL
	var next []string
	for _, u := range urls {
		next = append(next, withScheme(u))
	}
	for len(next) > 0 && len(nodes) < maxNodes {
		batch := make([]Node, min(len(next), maxNodes-len(nodes)))
		var wg sync.WaitGroup
		for i := range batch {
			wg.Go(func() { batch[i] = visit(next[i]) })
		}
		wg.Wait()
		nodes = append(nodes, batch...)
		next = nil
		for _, n := range batch {
			if n.Cluster == nil {
				continue
			}
			for _, known := range n.Cluster.Nodes {
				addr := withScheme(known.API)
				ids[addr] = known.ID
				asked := slices.ContainsFunc(nodes, func(o Node) bool { return o.URL == addr || o.Cluster != nil && o.Cluster.Self == known.ID })
				switch {
				case asked || slices.Contains(next, addr):
				case strings.HasPrefix(n.URL, "https://") && !strings.HasPrefix(addr, "https://"):
					nodes = append(nodes, Node{URL: addr, Err: errPlain})
				default:
					next = append(next, addr)
				}
			}
		}
	}
	for i := range nodes {
		n := &nodes[i]
		if n.ID = ids[n.URL]; n.Cluster != nil && n.Cluster.Self != "" {
			n.ID = n.Cluster.Self
		}
	}
	return nodes
}

// errPlain is why a node is not asked that speaks no TLS where others do: whoever listens
// would have the token.
var errPlain = errors.New("the others speak TLS and it does not, so it is not asked")

// withScheme is the URL of an address: one that says nothing speaks plain HTTP.
func withScheme(addr string) string {
	if strings.Contains(addr, "://") {
		return strings.TrimSuffix(addr, "/")
	}
	return "http://" + addr
}

// Each asks all nodes that the first ones know for a path, and gives the answers by node.
func (a *Asker) Each(ctx context.Context, urls []string, path string) (answers map[string][]byte, problems map[string]error) {
	answers, problems = map[string][]byte{}, map[string]error{}
	for _, n := range walk(urls, func(addr string) (n Node) {
		n.URL = addr
		n.Cluster, n.Err = a.cluster(ctx, addr)
		return n
	}) {
		if n.Err != nil {
			problems[n.name()] = n.Err
			continue
		}
		raw, _, err := a.get(ctx, n.URL+path, true)
		if err != nil {
			problems[n.name()] = err
			continue
		}
		answers[n.name()] = raw
	}
	return answers, problems
}

var errForeign = errors.New("that is no facetd node")

// cluster asks a node for the cluster as it knows it.
func (a *Asker) cluster(ctx context.Context, addr string) (*client.Cluster, error) {
	raw, _, err := a.get(ctx, addr+"/v1/cluster", true)
	if err != nil {
		return nil, err
	}
	var c client.Cluster
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("GET /v1/cluster: %w: %w", errForeign, err)
	}
	return &c, nil
}

// node asks one node.
func (a *Asker) node(ctx context.Context, addr string) Node {
	n := Node{URL: addr}
	began := time.Now()
	_, head, err := a.get(ctx, addr+"/livez", false)
	if err != nil && strings.Contains(err.Error(), "HTTP request to an HTTPS server") {
		err, head = errors.New("it speaks TLS; write its address as https://…"), nil
	}
	if err != nil && head == nil {
		n.Err = err
		return n
	}
	if date, err := http.ParseTime(head.Get("Date")); err == nil {
		// Date has whole seconds, cut off: it stands for half a second later.
		there, back := began, time.Now()
		n.Ahead = date.Add(time.Second / 2).Sub(there.Add(back.Sub(there) / 2))
		n.Within = time.Second/2 + back.Sub(there)/2
	}
	raw, _, err := a.get(ctx, addr+"/readyz?verbose", false)
	if err != nil {
		for line := range strings.Lines(string(raw)) {
			if check, ok := strings.CutPrefix(strings.TrimSpace(line), "[-] "); ok {
				n.Failing = append(n.Failing, check)
			}
		}
		if len(n.Failing) == 0 {
			n.Failing = []string{firstLine(err.Error())}
		}
	}
	switch n.Cluster, err = a.cluster(ctx, addr); {
	case errors.Is(err, errForeign):
		n.Err = err
		return n
	case err != nil:
		n.Denied = firstLine(err.Error())
		return n
	}
	if _, _, err := a.get(ctx, addr+"/v1/operations", false); err == nil {
		n.Open = true
	}
	if raw, _, err = a.get(ctx, addr+"/metrics", true); err != nil {
		n.Denied = firstLine(err.Error())
		return n
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(raw))
	if err != nil {
		n.Denied = "GET /metrics: " + err.Error()
		return n
	}
	n.Metrics = map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue()
			n.Metrics[name] += v
			if len(m.Label) == 1 {
				n.Metrics[name+"{"+m.Label[0].GetValue()+"}"] = v
			}
		}
	}
	return n
}

// get asks for one thing. With an error of HTTP it gives header and body as well.
func (a *Asker) get(ctx context.Context, addr string, withToken bool) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr, nil)
	if err != nil {
		return nil, nil, err
	}
	if withToken && a.Token != "" {
		req.Header.Set("Authorization", "Bearer "+a.Token)
	}
	resp, err := a.Client.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err // the address is told beside it
		}
		return nil, nil, err
	}
	defer resp.Body.Close() // it was read as far as wanted
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, message(raw))
	}
	return raw, resp.Header, err
}

// message is what an error's body says.
func message(raw []byte) string {
	var body struct {
		Error struct{ Message string }
	}
	if json.Unmarshal(raw, &body) == nil && body.Error.Message != "" {
		return body.Error.Message
	}
	return firstLine(string(raw))
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return s
}
