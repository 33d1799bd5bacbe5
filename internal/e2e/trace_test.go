//go:build unix

package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// spans is a collector of traces that keeps what nodes tell it.
type spans struct {
	t    testing.TB
	mu   sync.Mutex
	list []*otlp.Span
	node map[*otlp.Span]string
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			s.t.Error(err)
			return
		}
		body = z
	}
	raw, err := io.ReadAll(body)
	var req collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(raw, &req)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		s.t.Errorf("%s: %v", r.URL.Path, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, res := range req.ResourceSpans {
		node := ""
		for _, a := range res.Resource.Attributes {
			if a.Key == "service.instance.id" {
				node = a.Value.GetStringValue()
			}
		}
		for _, scope := range res.ScopeSpans {
			for _, span := range scope.Spans {
				s.list = append(s.list, span)
				s.node[span] = node
			}
		}
	}
}

// below are the spans of a parent, by name.
func (s *spans) below(trace, parent string) map[string]*otlp.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]*otlp.Span{}
	for _, span := range s.list {
		if hex.EncodeToString(span.TraceId) == trace && hex.EncodeToString(span.ParentSpanId) == parent {
			found[span.Name+" at "+s.node[span]] = span
		}
	}
	return found
}

// TestTraces follows a request from the SDK over a redirect to the owner, and there
// through the facet's line, SQLite, and log and quorum. One that is not sampled leaves
// nothing behind.
func TestTraces(t *testing.T) {
	sink := &spans{t: t, node: map[*otlp.Span]string{}}
	server := httptest.NewServer(sink)
	defer server.Close()
	c := newCluster(t, 3, false, "--otlp-endpoint", server.URL)
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	plain := c.dial(client.Options{})
	if _, err := exec1(t, plain, "acme/quiet", "CREATE TABLE t(a)"); err != nil {
		t.Fatal(err)
	}
	if _, err := exec1(t, plain, "acme/traced", "CREATE TABLE t(a)"); err != nil {
		t.Fatal(err)
	}
	owner := c.owner(plain, "acme/traced")
	other := c.members[slices.IndexFunc(c.members, func(m *member) bool { return m != owner })]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// A client that knows one node only is redirected.
	cl, err := client.Open(ctx, []string{other.api()}, client.Options{TracerProvider: provider})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := exec1(t, cl, "acme/traced", "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	var asked sdktrace.ReadOnlySpan
	c.until("the client has its span", func() error {
		all := exporter.GetSpans().Snapshots()
		if len(all) == 0 {
			return errors.New("none")
		}
		asked = all[0]
		return nil
	})
	if len(asked.Events()) == 0 || asked.Events()[0].Name != "redirect" {
		t.Errorf("the redirect is not on the client's span: %v", asked.Events())
	}
	trace, span := asked.SpanContext().TraceID().String(), asked.SpanContext().SpanID().String()
	c.until("both nodes told of the request", func() error {
		found := sink.below(trace, span)
		refused, served := found["facetd read at "+other.name], found["facetd write at "+owner.name]
		if refused == nil || served == nil {
			return fmt.Errorf("%d spans: %v", len(found), found)
		}
		parts := sink.below(trace, hex.EncodeToString(served.SpanId))
		var last uint64
		for _, name := range []string{"wait for the facet", "sqlite", "log and quorum"} {
			p := parts[name+" at "+owner.name]
			if p == nil {
				return fmt.Errorf("%s is missing: %v", name, parts)
			}
			if p.StartTimeUnixNano < last || p.EndTimeUnixNano < p.StartTimeUnixNano || p.StartTimeUnixNano < served.StartTimeUnixNano || p.EndTimeUnixNano > served.EndTimeUnixNano {
				t.Errorf("%s lies from %d to %d, the part before begins at %d, the request takes from %d to %d",
					name, p.StartTimeUnixNano, p.EndTimeUnixNano, last, served.StartTimeUnixNano, served.EndTimeUnixNano)
			}
			last = p.StartTimeUnixNano
		}
		return nil
	})
	for _, s := range sink.list {
		if id := hex.EncodeToString(s.TraceId); id != trace {
			t.Errorf("a span of %s, which nobody traces", id)
		}
	}
	// An error tells the id by which the logs know the request.
	_, err = exec1(t, plain, "acme/traced", "INSERT INTO missing VALUES (1)")
	var e *facet.Error
	if !errors.As(err, &e) || len(e.Request) != 32 || strings.Trim(e.Request, "0") == "" {
		t.Errorf("%v has the request id %q", err, e.Request)
	}
}

func exec1(t testing.TB, cl *client.Client, name, sql string) (client.Result, error) {
	t.Helper()
	f, err := cl.Facet(name)
	if err != nil {
		return client.Result{}, err
	}
	return f.Exec(t.Context(), sql)
}

// TestSlowLogNamesRequest: a slow request is logged under the id its caller knows, over
// HTTP and in the SDK.
func TestSlowLogNamesRequest(t *testing.T) {
	c := newCluster(t, 1, false, "--slow-request", "1ns")
	const id = "0af7651916cd43dd8448eb211c80319c"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.members[0].api()+"/v1/db/acme/shop/exec", strings.NewReader("CREATE TABLE t(a)"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Traceparent", "00-"+id+"-b7ad6b7169203331-00")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Request-Id") != id {
		t.Errorf("%s, X-Request-Id %q", resp.Status, resp.Header.Get("X-Request-Id"))
	}
	c.until("the log names the request", func() error {
		if log := c.members[0].tail(); !bytes.Contains([]byte(log), []byte("request_id="+id)) {
			return errors.New("it does not")
		}
		return nil
	})
}
