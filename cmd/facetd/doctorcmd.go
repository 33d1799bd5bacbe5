package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"

	"github.com/facetd/facetd/cmd/facetd/internal/doctor"
)

func doctorCommand() *command {
	return &command{
		name: "doctor", short: "look at a cluster and say what is wrong, and what to do",
		long: `Asks the nodes of --server, and all nodes they know, whether they serve, and compares what
they say: leader, versions, copies, clocks, disks and open files. With
--data it also looks at this machine: whether the directory can be used, what file system it
is on, how long an fsync takes (40 of 4 KiB in a file that is removed again), how many files
may be open, whether something keeps the clock right. --data alone asks no node.

Nothing is changed. The exit code is 1 if something fails; warnings alone leave it 0.`,
		examples: []string{
			"facetd doctor",
			"facetd doctor --server http://10.0.0.1:7400 --token-file supervisor.token",
			"facetd doctor --data /var/lib/facetd",
		},
		setup: func(fs *flag.FlagSet) action {
			srv := serverFlags(fs)
			data := fs.String("data", "", "look at this machine too: at the data directory `DIR` of a node, or where it is to be")
			json_ := fs.Bool("json", false, "print the findings as JSON")
			all := fs.Bool("all", false, "show what is fine as well")
			return func(ctx context.Context, p *program, _ []string) error {
				ctx, stop := p.untilSignal(ctx)
				defer stop()
				var findings []doctor.Finding
				if *data != "" {
					disk := doctor.Machine(*data)
					findings = disk.Judge()
				}
				if *data == "" || len(srv.urls) > 0 {
					asker, err := srv.asker()
					if err != nil {
						return err
					}
					facts := asker.Ask(ctx, srv.endpoints())
					findings = append(findings, facts.Judge()...)
				}
				if *json_ {
					if err := json.NewEncoder(p.stdout).Encode(findings); err != nil {
						return err
					}
				} else if err := printFindings(p.stdout, findings, *all); err != nil {
					return err
				}
				if doctor.Worst(findings) == doctor.Fail {
					return &toldError{errors.New("something is wrong")}
				}
				return nil
			}
		},
	}
}

// asker is how doctor asks nodes.
func (s *server) asker() (*doctor.Asker, error) {
	cfg, err := s.tls()
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = cfg
	a := &doctor.Asker{Client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, Token: s.token}
	if s.tokenFile != "" {
		if a.Token, err = readToken(s.tokenFile); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// printFindings prints what is wrong, each with what to do, and then how much was fine.
func printFindings(w io.Writer, findings []doctor.Finding, all bool) error {
	count := map[doctor.Level]int{}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		count[f.Level]++
		if f.Level == doctor.OK && !all {
			continue
		}
		level := string(f.Level)
		if f.Level == doctor.Fail {
			level = "FAIL"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", level, f.About, f.Check, f.Text)
		if f.Do != "" {
			fmt.Fprintf(t, "\t\t\tdo: %s\n", f.Do)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var parts []string
	for _, l := range []struct {
		level doctor.Level
		word  string
	}{{doctor.Fail, "failed"}, {doctor.Warn, "warned"}, {doctor.OK, "fine"}} {
		if n := count[l.level]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, l.word))
		}
	}
	_, err := fmt.Fprintf(w, "%d checks: %s\n", len(findings), strings.Join(parts, ", "))
	return err
}
