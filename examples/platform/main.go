// Command platform is a small platform on facetd: its customers ship apps it does not
// trust, and every app has databases that nobody else reaches.
//
//	facetd token keygen --key signing.pem --auth-keys auth-keys.json
//	facetd serve --node-id n1 --data ./n1 --listen 127.0.0.1:7400 --auth-keys auth-keys.json &
//	PLATFORM_OPERATOR_KEY=secret go run ./examples/platform --key signing.pem
//
// A customer is a tenant of facetd. The platform has the key that signs tokens, and by
// it two clients that no app ever sees: a supervisor, which sets quotas and freezes, and
// one for its own registry, which is a facet like any other. An app has a client with a
// token that opens the app's own facets and ends after minutes.
//
// docs/guides/platform.md walks through it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/facetd/facetd/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "platform:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, env func(string) string, stdout io.Writer) error {
	cfg := config{operatorKey: env("PLATFORM_OPERATOR_KEY")}
	fs := flag.NewFlagSet("platform", flag.ContinueOnError)
	server := fs.String("server", "http://127.0.0.1:7400", "`URLS` of nodes, with commas between; any of the cluster will do")
	ca := fs.String("ca", "", "`FILE` with the CA of the nodes, where that is one of your own")
	key := fs.String("key", "signing.pem", "`FILE` with the private key that signs tokens")
	listen := fs.String("listen", "127.0.0.1:8080", "`ADDRESS` for customers and visitors")
	fs.DurationVar(&cfg.tokenLife, "token-life", 5*time.Minute, "an app's token is good for this `TIME`")
	fs.DurationVar(&cfg.lookEvery, "look-every", time.Second, "look at active tenants after this `TIME`")
	fs.Uint64Var(&cfg.freezeAt, "freeze-at", 200, "freeze a tenant of which `N` requests a second or more are refused, three looks in a row")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if cfg.operatorKey == "" {
		return errors.New("set PLATFORM_OPERATOR_KEY to a secret of yours: it makes customers, and freezes them")
	}
	if cfg.tokenLife < 5*time.Second || cfg.lookEvery <= 0 || cfg.freezeAt == 0 {
		return errors.New("--token-life is 5s at least, --look-every and --freeze-at are more than nothing")
	}
	cfg.servers = strings.Split(*server, ",")
	var err error
	if cfg.tls, err = client.LoadTLS(*ca, "", ""); err != nil {
		return err
	}
	if cfg.sign, err = readSigner(*key); err != nil {
		return err
	}
	p, err := newPlatform(ctx, cfg)
	if err != nil {
		return err
	}
	defer p.close()
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "platform at http://%s\n", l.Addr())

	srv := &http.Server{Handler: p.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { p.watch(ctx) })
	group.Go(func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			log.Print("stop: ", err)
		}
	})
	err = srv.Serve(l)
	cancel()
	group.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}
