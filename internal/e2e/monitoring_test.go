//go:build unix

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/facetd/facetd/client"
)

// conditional are the metrics that only nodes with certain settings have.
var conditional = map[string]bool{
	"facetd_token_keys": true, "facetd_token_revocations": true, "facetd_token_keys_unusable_total": true,
	"facetd_certificate_expires_timestamp_seconds": true, "facetd_credentials_unusable_total": true,
}

// TestMonitoring holds the documents of operators against three nodes under load: the
// table of metrics, the dashboard and the alerting rules name what there is, and the
// rules want no label or value that no node shows.
func TestMonitoring(t *testing.T) {
	c := newCluster(t, 3, false)
	cl := c.dial(client.Options{})
	for i := range 20 {
		f, err := cl.Facet(fmt.Sprintf("acme/f%d", i))
		if err == nil {
			_, err = f.Exec(t.Context(), "CREATE TABLE t(a)")
		}
		if err == nil {
			_, err = f.Query(t.Context(), "SELECT * FROM t")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var families map[string]*dto.MetricFamily
	c.until("all nodes show metrics of a cluster that has found itself", func() error {
		families = map[string]*dto.MetricFamily{}
		for _, m := range c.members {
			if err := m.scrape(families); err != nil {
				return err
			}
		}
		// An owner compares copies some time after it has started.
		if families["facetd_facets_endangered"] == nil {
			return fmt.Errorf("no facetd_facets_endangered")
		}
		return nil
	})

	t.Run("table", func(t *testing.T) {
		documented := map[string]string{}
		for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(read(t, "../../docs/METRICS.md"), -1) {
			documented[row[1]] = row[2]
		}
		for name, f := range families {
			if !strings.HasPrefix(name, "facetd_") {
				continue
			}
			if kind := strings.ToLower(f.GetType().String()); documented[name] != kind {
				t.Errorf("docs/METRICS.md calls %s %q, it is a %s", name, documented[name], kind)
			}
		}
		for name := range documented {
			if families[name] == nil && !conditional[name] {
				t.Errorf("docs/METRICS.md names %s, which no node shows", name)
			}
		}
	})
	t.Run("dashboard", func(t *testing.T) {
		var board struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal([]byte(read(t, "../../docs/monitoring/dashboard.json")), &board); err != nil {
			t.Fatal(err)
		}
		exprs := 0
		for _, p := range board.Panels {
			for _, target := range p.Targets {
				exprs++
				checkExpr(t, families, "panel "+p.Title, target.Expr)
			}
		}
		if exprs < 30 {
			t.Errorf("only %d queries were found", exprs)
		}
	})
	t.Run("alerts", func(t *testing.T) {
		var rules struct {
			Groups []struct {
				Name  string
				Rules []struct {
					Alert, Expr         string
					For                 model.Duration
					Labels, Annotations map[string]string
				}
			}
		}
		dec := yaml.NewDecoder(strings.NewReader(read(t, "../../docs/monitoring/alerts.yml")))
		dec.KnownFields(true)
		if err := dec.Decode(&rules); err != nil {
			t.Fatal(err)
		}
		count := 0
		for _, g := range rules.Groups {
			for _, r := range g.Rules {
				count++
				checkExpr(t, families, "alert "+r.Alert, r.Expr)
				if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
					t.Errorf("alert %s has no severity, summary or action", r.Alert)
				}
			}
		}
		if count < 10 {
			t.Errorf("only %d rules were found", count)
		}
	})
	t.Run("lint", func(t *testing.T) {
		one := map[string]*dto.MetricFamily{}
		if err := c.members[0].scrape(one); err != nil {
			t.Fatal(err)
		}
		var ours []*dto.MetricFamily
		for name, f := range one {
			if strings.HasPrefix(name, "facetd_") {
				ours = append(ours, f)
			}
		}
		problems, err := promlint.NewWithMetricFamilies(ours).Lint()
		if err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
	})
}

func read(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// scrape adds the metrics of the node to all.
func (m *member) scrape(all map[string]*dto.MetricFamily) error {
	resp, err := http.Get("http://" + m.api() + "/metrics")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	const most = 4 << 20
	text, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	if err != nil {
		return err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	for name, f := range families {
		if have := all[name]; have != nil {
			have.Metric = append(have.Metric, f.Metric...)
		} else {
			all[name] = f
		}
	}
	return err
}

var (
	// series is a metric of ours, or of the process, and what it is selected by.
	series  = regexp.MustCompile(`\b((?:facetd|process|go)_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	matcher = regexp.MustCompile(`([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
)

// states are the values a label may have though no node shows them now.
var states = map[string][]string{
	"state": {"alive", "draining", "decommissioning", "suspect", "gone"},
	"code":  {"ok", "not_owner", "internal", "corrupt", "unavailable", "overloaded", "outcome_unknown"},
}

// checkExpr fails the test for a metric, a label or a value that does not exist.
func checkExpr(t *testing.T, families map[string]*dto.MetricFamily, where, expr string) {
	t.Helper()
	for _, s := range series.FindAllStringSubmatch(expr, -1) {
		name := s[1]
		f := families[name]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && f == nil {
				f = families[base]
			}
		}
		if f == nil {
			if !conditional[name] {
				t.Errorf("%s uses %s, which no node shows", where, name)
			}
			continue
		}
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			label, op, value := m[1], m[2], m[3]
			if label == "job" || label == "instance" {
				continue // Prometheus adds them
			}
			values := slices.Clone(states[label])
			found := false
			for _, one := range f.Metric {
				for _, l := range one.Label {
					if l.GetName() == label {
						found = true
						values = append(values, l.GetValue())
					}
				}
			}
			if !found {
				t.Errorf("%s selects %s by %s, which it does not have", where, name, label)
				continue
			}
			wanted := []string{value}
			if strings.Contains(op, "~") {
				wanted = strings.Split(value, "|")
			}
			for _, w := range wanted {
				if !slices.Contains(values, w) {
					t.Errorf("%s wants %s of %s to be %s, which it never is", where, label, name, w)
				}
			}
		}
	}
}

// TestDoctor: facetd doctor finds nothing wrong with a sound cluster, and tells what is
// when a node was killed.
func TestDoctor(t *testing.T) {
	c := newCluster(t, 3, false)
	doctor := func(m *member) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, binary, "doctor", "--server", "http://"+m.api(), "--data", m.dir, "--all").CombinedOutput()
		return string(out), err
	}
	c.until("the doctor finds nothing wrong", func() error {
		out, err := doctor(c.members[0])
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		for _, m := range c.members {
			if !regexp.MustCompile(`(?m)^ok +` + m.name + ` +ready`).MatchString(out) {
				return fmt.Errorf("%s is not called ready:\n%s", m.name, out)
			}
		}
		return nil
	})
	f, err := c.dial(client.Options{}).Facet("acme/busy")
	if err == nil {
		_, err = f.Exec(t.Context(), "CREATE TABLE t(a)")
	}
	if err != nil {
		t.Fatal(err)
	}
	c.until("the tenant is among the busiest", func() error {
		out, err := exec.Command(binary, "tenant", "top", "--by", "writes", "--server", "http://"+c.members[2].api()).CombinedOutput()
		if err == nil && !regexp.MustCompile(`(?m)^acme +[0-9.]+ +[0-9.]+ `).Match(out) {
			err = fmt.Errorf("it is not:\n%s", out)
		}
		return err
	})
	killed := c.members[1]
	killed.kill()
	c.until("the doctor sees that a node is gone", func() error {
		out, err := doctor(c.members[0])
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			return fmt.Errorf("exit %v, want 1\n%s", err, out)
		}
		for _, want := range []string{`(?m)^FAIL +` + killed.name + ` +reach`, `(?m)^FAIL +` + killed.name + ` +state`, `(?m)^ok +` + c.members[2].name + ` +ready`} {
			if !regexp.MustCompile(want).MatchString(out) {
				return fmt.Errorf("no line %s:\n%s", want, out)
			}
		}
		return nil
	})
}
