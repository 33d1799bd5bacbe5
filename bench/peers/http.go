package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// keyName is the name of a key, for those that have names.
func keyName(key int) string { return fmt.Sprintf("key-%07d", key) }

// lookPath finds a program in a directory, if there is one, and then in PATH.
func lookPath(dir, program string) string {
	if dir != "" {
		if p, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			if p, err = filepath.Abs(p); err == nil {
				return p
			}
		}
	}
	p, err := exec.LookPath(program)
	if err != nil {
		return ""
	}
	return p
}

// ask gives the first line of what a program says of itself.
func ask(ctx context.Context, path string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", path, strings.Join(args, " "), err, out)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return first, nil
}

// keptConnections is an HTTP client that keeps a connection for each caller.
func keptConnections(callers int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers, MaxIdleConns: callers}}
}

// askHTTP sends a request and gives what a successful answer holds.
func askHTTP(ctx context.Context, c *http.Client, method, url, kind string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(raw))
	}
	return raw, err
}

// sumMetrics adds up a metric of all servers and labels.
func sumMetrics(ctx context.Context, urls []string, name string) (sum int64, err error) {
	for _, u := range urls {
		raw, err := askHTTP(ctx, http.DefaultClient, http.MethodGet, u+"/metrics", "", nil)
		if err != nil {
			return 0, err
		}
		n, err := sumOf(raw, name)
		if err != nil {
			return 0, fmt.Errorf("metrics of %s: %w", u, err)
		}
		sum += n
	}
	return sum, nil
}

// sumOf adds up the lines of a metric in the Prometheus text format.
func sumOf(text []byte, name string) (sum int64, err error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || (rest[0] != ' ' && rest[0] != '{') {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		sum += int64(v)
	}
	return sum, lines.Err()
}
