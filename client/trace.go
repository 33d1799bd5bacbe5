package client

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/facetd/facetd/facet"
)

// Every request carries a trace (facet.Trace): its id is what the nodes' logs call it,
// and what facet.Error.Request tells. It is that of the span in the caller's context, if
// there is one, and else drawn at random. With Options.TracerProvider each request is a
// span of its own, whose events are redirects and retries.

// instrumentation names this package to tracers.
const instrumentation = "github.com/facetd/facetd/client"

// name gives the request its trace, once: retries keep it.
func (k *call) name(ctx context.Context) {
	if !k.req.Trace.IsZero() {
		return
	}
	of := trace.SpanContextFromContext(ctx)
	if k.tracer != nil {
		_, k.span = k.tracer.Start(ctx, "facetd request", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.String("db.system.name", "facetd"), attribute.String("db.namespace", k.req.Name.String()),
		))
		of = k.span.SpanContext()
	}
	t := &k.req.Trace
	if of.IsValid() {
		*t = facet.Trace{ID: of.TraceID(), Span: of.SpanID(), Sampled: of.IsSampled()}
		return
	}
	binary.BigEndian.PutUint64(t.ID[:8], rand.Uint64()|1) // never zero
	binary.BigEndian.PutUint64(t.ID[8:], rand.Uint64())
	binary.BigEndian.PutUint64(t.Span[:], rand.Uint64()|1)
}

// event notes on the span what happened on the way.
func (k *call) event(what string, to *node, err error) {
	if k.span == nil {
		return
	}
	attrs := []attribute.KeyValue{attribute.String("error.message", err.Error())}
	if to != nil {
		attrs = append(attrs, attribute.String("server.address", to.at.host))
	}
	k.span.AddEvent(what, trace.WithAttributes(attrs...))
}

// endSpan ends the span, if there is one. err is what became of the request.
func (k *call) endSpan(err error) {
	if k.span == nil {
		return
	}
	if k.node != nil {
		k.span.SetAttributes(attribute.String("server.address", k.node.at.host))
	}
	if err != nil {
		k.span.RecordError(err)
		k.span.SetStatus(codes.Error, err.Error())
	}
	k.span.End()
	k.span = nil
}

// handOn tells a node of the caller's span, in a request of HTTP.
func handOn(ctx context.Context, h http.Header) {
	if of := trace.SpanContextFromContext(ctx); of.IsValid() {
		h.Set("Traceparent", facet.Trace{ID: of.TraceID(), Span: of.SpanID(), Sampled: of.IsSampled()}.Traceparent())
	}
}
