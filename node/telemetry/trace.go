package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/facetd/facetd/node/service"
)

// instrumentation names this package to tracers.
const instrumentation = "github.com/facetd/facetd/node"

// maxTraced bounds the requests a second that are recorded: clients decide which, and
// not all of them are friends.
const maxTraced = 500

// record makes the spans of a request that its client wants recorded: one of the
// request, and below it those of what it went through. They are made when it has ended,
// so that a request that is not recorded costs nothing.
func (r *Recorder) record(call *service.Call, kind int) {
	p, of := &call.Phases, &call.Request.Trace
	at := func(d time.Duration) trace.SpanEventOption { return trace.WithTimestamp(service.Wall(d)) }
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: of.ID, SpanID: of.Span, TraceFlags: trace.FlagsSampled, Remote: true,
	}))
	ctx, span := r.tracer.Start(ctx, "facetd "+kindNames[kind], at(p.Submitted), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("db.system.name", "facetd"),
		attribute.String("db.namespace", call.Request.Name.String()),
		attribute.Int("facetd.statements", len(call.Request.Steps)),
	))
	part := func(name string, from, to time.Duration) {
		_, s := r.tracer.Start(ctx, name, at(from))
		s.End(at(to))
	}
	if p.Executed != 0 {
		part("wait for the facet", p.Submitted, p.Started)
		part("sqlite", p.Started, p.Executed)
		if p.Wrote {
			part("log and quorum", p.Executed, p.Ended)
		} else {
			part("confirm", p.Executed, p.Ended)
		}
	}
	if call.Err != nil {
		code := codeOf(call.Err).String()
		span.SetAttributes(attribute.String("error.type", code))
		span.SetStatus(codes.Error, call.Err.Error())
	}
	span.End(at(p.Ended))
}

// Export sends spans to a collector that speaks OTLP over HTTP: endpoint is its URL,
// http://127.0.0.1:4318 for example. It makes none by itself: whether a request is
// recorded is its client's decision. What cannot be sent is dropped and logged. stop
// sends what is left.
func Export(ctx context.Context, endpoint, node, version string, log *slog.Logger) (provider trace.TracerProvider, stop func(context.Context) error, err error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, nil, fmt.Errorf("OTLP endpoint %q is not a URL like http://127.0.0.1:4318", endpoint)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()))
	if err != nil {
		return nil, nil, fmt.Errorf("export traces to %s: %w", endpoint, err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces are lost", "endpoint", endpoint, "error", err) }))
	p := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter), // bounded: what does not fit into its queue is dropped
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "facetd"), attribute.String("service.instance.id", node), attribute.String("service.version", version),
		)),
	)
	return p, func(ctx context.Context) error { return errors.Join(p.ForceFlush(ctx), p.Shutdown(ctx)) }, nil
}
