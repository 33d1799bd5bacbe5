package limits

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/internal/wire"
)

// echo measures pings with a payload of the value's size over one bare connection:
// what the transport can carry when neither side does anything else.
func (cfg *Config) echo(ctx context.Context) (float64, error) {
	p, err := newPinger(ctx, cfg.Endpoint, cfg.Token, cfg.Callers, cfg.ValueSize)
	if err != nil {
		return 0, err
	}
	defer p.close()
	return cfg.rate(ctx, cfg.Callers, p.ping)
}

// pinger is one bare connection to a node that callers share.
type pinger struct {
	conn    *wire.Conn
	answers []chan struct{} // of each caller
	payload []byte
	ended   chan error // of the reader
}

func newPinger(ctx context.Context, endpoint, token string, callers, size int) (*pinger, error) {
	conn, err := dial(ctx, endpoint, token)
	if err != nil {
		return nil, err
	}
	p := &pinger{conn: conn, answers: make([]chan struct{}, callers), payload: make([]byte, min(size, wire.MaxPing)), ended: make(chan error, 1)}
	rand.Read(p.payload)
	for i := range p.answers {
		p.answers[i] = make(chan struct{}, 1)
	}
	ready := make(chan struct{})
	conn.End(wire.AppendHello(conn.Begin(), wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Software: "facetd bench echo"}))
	go func() {
		greeted := false
		p.ended <- conn.Run(func(f wire.Frame) error {
			switch {
			case !greeted && f.Type == wire.TypeHelloOK:
				greeted = true
				conn.SetMaxFrame(wire.MaxFrame)
				close(ready)
			case greeted && f.Type == wire.TypePong && f.ID >= 1 && int(f.ID) <= len(p.answers):
				p.answers[f.ID-1] <- struct{}{}
			default:
				return fmt.Errorf("unexpected %v frame", f.Type)
			}
			return nil
		})
	}()
	select {
	case <-ready:
		return p, nil
	case <-conn.Done():
		err = conn.Err()
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	p.close()
	return nil, err
}

// ping makes one round trip for a caller.
func (p *pinger) ping(caller int) error {
	if err := p.conn.End(wire.AppendPing(p.conn.Begin(), wire.TypePing, uint32(caller+1), p.payload)); err != nil {
		return err
	}
	select {
	case <-p.answers[caller]:
		return nil
	case <-p.conn.Done():
		return p.conn.Err()
	}
}

func (p *pinger) close() {
	p.conn.Close(nil)
	<-p.ended
}

// dial connects to a node and upgrades to the native protocol.
func dial(ctx context.Context, endpoint, token string) (*wire.Conn, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" {
		return nil, fmt.Errorf("endpoint %q is no http:// URL", endpoint)
	}
	nc, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Now().Add(5 * time.Second))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+wire.Path, nil)
	if err != nil {
		nc.Close()
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", wire.Protocol)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	br := bufio.NewReader(nc)
	err = req.Write(nc)
	if err == nil {
		var resp *http.Response
		if resp, err = http.ReadResponse(br, req); err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
			resp.Body.Close()
			err = fmt.Errorf("upgrade: %s", resp.Status)
		}
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	nc.SetDeadline(time.Time{})
	early, _ := br.Peek(br.Buffered()) // never fails: it is buffered
	return wire.NewConn(nc, early, wire.ConnConfig{}), nil
}

// sdkEcho measures the same through the SDK: the difference is the SDK's.
func (cfg *Config) sdkEcho(ctx context.Context) (float64, error) {
	c, err := client.Open(ctx, []string{cfg.Endpoint}, client.Options{Token: cfg.Token, Software: "facetd bench echo"})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	payload := make([]byte, min(cfg.ValueSize, wire.MaxPing))
	rand.Read(payload)
	return cfg.rate(ctx, cfg.Callers, func(int) error {
		_, err := c.Echo(ctx, payload)
		return err
	})
}
