//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// serveFlags are the flags of facetd serve, as its help tells.
func serveFlags(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command(binary, "help", "serve").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^  --([a-z-]+) `).FindAllStringSubmatch(string(out), -1) {
		names = append(names, m[1])
	}
	if len(names) < 30 {
		t.Fatalf("help tells of %d flags only", len(names))
	}
	return names
}

// TestExampleConfig: docs/deploy/facetd.conf explains every setting there is, and no
// other, and what it sets is understood.
func TestExampleConfig(t *testing.T) {
	const file = "../../docs/deploy/facetd.conf"
	flags := serveFlags(t)
	var named []string
	for _, m := range regexp.MustCompile(`(?m)^#?([a-z-]+) = `).FindAllStringSubmatch(read(t, file), -1) {
		if slices.Contains(named, m[1]) {
			t.Errorf("%s has %s twice", file, m[1])
		}
		named = append(named, m[1])
		if !slices.Contains(flags, m[1]) {
			t.Errorf("%s explains %s, which serve does not know", file, m[1])
		}
	}
	for _, f := range flags {
		if f != "config" && !slices.Contains(named, f) {
			t.Errorf("%s does not explain %s", file, f)
		}
	}
	// With all comments taken for settings it is read as well: the defaults shown have the
	// right form. It stops where it looks for the keys of tokens, which are not there.
	all := regexp.MustCompile(`(?m)^#([a-z-]+ = )`).ReplaceAllString(read(t, file), "$1")
	all = regexp.MustCompile(`(?m)^data = .*$`).ReplaceAllString(all, "data = "+t.TempDir())
	conf := filepath.Join(t.TempDir(), "facetd.conf")
	if err := os.WriteFile(conf, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "serve", "--config", conf).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "/etc/facetd/") {
		t.Errorf("exit %v, want 1 and a file of /etc/facetd that is not there:\n%s", err, out)
	}
}

// TestDeployments: what the unit of systemd, the image and the manifests of Kubernetes
// start is a command line there is.
func TestDeployments(t *testing.T) {
	flags := serveFlags(t)
	check := func(where string, args []string) {
		for _, a := range args {
			name, ok := strings.CutPrefix(a, "--")
			name, _, _ = strings.Cut(name, "=")
			if ok && !slices.Contains(flags, name) {
				t.Errorf("%s: serve has no flag --%s", where, name)
			}
		}
	}
	unit := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(read(t, "../../docs/deploy/facetd.service"))
	if unit == nil || !strings.HasPrefix(unit[1], "/usr/local/bin/facetd serve ") {
		t.Errorf("the unit starts %q", unit)
	} else {
		check("facetd.service", strings.Fields(unit[1])[2:])
	}
	image := read(t, "../../docs/deploy/Containerfile")
	for _, want := range []string{`ENTRYPOINT ["/facetd"]`, `CMD ["serve"]`, "ENV FACETD_DATA="} {
		if !strings.Contains(image, want) {
			t.Errorf("the image has no %s", want)
		}
	}
	dec := yaml.NewDecoder(strings.NewReader(read(t, "../../docs/deploy/kubernetes.yaml")))
	started := 0
	for {
		var doc struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct {
						Containers []struct {
							Args []string
							Env  []struct{ Name string }
						}
					}
				}
			}
		}
		if err := dec.Decode(&doc); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, c := range doc.Spec.Template.Spec.Containers {
			started++
			if len(c.Args) == 0 || c.Args[0] != "serve" {
				t.Errorf("%s starts %q", doc.Kind, c.Args)
				continue
			}
			check(doc.Kind, c.Args[1:])
			for _, v := range regexp.MustCompile(`\$\(([A-Z_]+)\)`).FindAllStringSubmatch(strings.Join(c.Args, " "), -1) {
				if !slices.ContainsFunc(c.Env, func(e struct{ Name string }) bool { return e.Name == v[1] }) {
					t.Errorf("%s uses $(%s), which is not in the environment", doc.Kind, v[1])
				}
			}
		}
	}
	if started != 1 {
		t.Errorf("%d containers were found", started)
	}
}

// TestNotify: a node tells systemd when it serves and when it stops.
func TestNotify(t *testing.T) {
	// The path of a socket is short.
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cmd := exec.CommandContext(t.Context(), binary, "serve", "--insecure", "--node-id", "n1", "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer cmd.Process.Kill()
	expect := func(want string) {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		buf := make([]byte, 256)
		n, err := conn.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("told %q, %v; want %q", buf[:n], err, want)
		}
	}
	expect("READY=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect("STOPPING=1")
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal(fmt.Errorf("it does not end"))
	}
}
