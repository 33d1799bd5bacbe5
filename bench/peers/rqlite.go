package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// rqlitePeer is rqlite through its HTTP API with kept connections, all to the
// leader: a request to another node would be one more hop.
type rqlitePeer struct{}

func (rqlitePeer) name() string          { return "rqlite" }
func (rqlitePeer) versionArgs() []string { return []string{"-version"} }
func (rqlitePeer) about() string {
	return "HTTP API, a kept connection per caller to the leader; /db/execute, and /db/query?level=linearizable; a key is a row of one table"
}

func (rqlitePeer) commands(dirs []string, ports []int) (all [][]string) {
	var join []string
	for _, p := range ports {
		join = append(join, loopback(p+1))
	}
	for k, p := range ports {
		all = append(all, []string{"-node-id", fmt.Sprint(k + 1), "-http-addr", loopback(p), "-raft-addr", loopback(p + 1),
			"-bootstrap-expect", fmt.Sprint(len(ports)), "-join", strings.Join(join, ","), dirs[k]})
	}
	return all
}

func (rqlitePeer) open(ctx context.Context, ports []int) (session, error) {
	s := &rqliteSession{http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *callers, MaxIdleConns: *callers}}}
	for _, p := range ports {
		if _, err := s.ask(ctx, http.MethodGet, "http://"+loopback(p)+"/readyz", nil); err != nil {
			return nil, errors.Join(err, s.close())
		}
		var st struct {
			Store struct {
				Raft struct {
					State string `json:"state"`
				} `json:"raft"`
			} `json:"store"`
		}
		raw, err := s.ask(ctx, http.MethodGet, "http://"+loopback(p)+"/status", nil)
		if err == nil {
			err = json.Unmarshal(raw, &st)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("status: %w", err), s.close())
		}
		if st.Store.Raft.State == "Leader" {
			s.leader = "http://" + loopback(p)
		}
	}
	if s.leader == "" {
		return nil, errors.Join(errors.New("nobody says that it leads"), s.close())
	}
	return s, nil
}

type rqliteSession struct {
	http   *http.Client
	leader string
}

func (s *rqliteSession) ask(ctx context.Context, method, url string, body any) ([]byte, error) {
	var r io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
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

// run runs one statement and gives its rows.
func (s *rqliteSession) run(ctx context.Context, path string, statement ...any) ([][]any, error) {
	raw, err := s.ask(ctx, http.MethodPost, s.leader+path, []any{statement})
	if err != nil {
		return nil, err
	}
	var out struct {
		Results []struct {
			Error  string  `json:"error"`
			Values [][]any `json:"values"`
		} `json:"results"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, err
	}
	switch {
	case out.Error != "":
		return nil, errors.New(out.Error)
	case len(out.Results) != 1:
		return nil, fmt.Errorf("%d results of one statement", len(out.Results))
	case out.Results[0].Error != "":
		return nil, errors.New(out.Results[0].Error)
	}
	return out.Results[0].Values, nil
}

func (s *rqliteSession) prepare(ctx context.Context) error {
	// Text, because rqlite sends blobs in another form than it takes them.
	_, err := s.run(ctx, "/db/execute", strings.Replace(createSQL, "BLOB", "TEXT", 1))
	return err
}

func (s *rqliteSession) write(ctx context.Context, key int, value []byte, _ bool) error {
	_, err := s.run(ctx, "/db/execute", upsertSQL, key, string(value))
	return err
}

func (s *rqliteSession) read(ctx context.Context, key int) (int, error) {
	rows, err := s.run(ctx, "/db/query?level=linearizable", selectSQL, key)
	if err != nil {
		return 0, err
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return 0, fmt.Errorf("%d rows of key %d", len(rows), key)
	}
	v, ok := rows[0][0].(string)
	if !ok {
		return 0, fmt.Errorf("the value of key %d is a %T", key, rows[0][0])
	}
	return len(v), nil
}

func (s *rqliteSession) close() error {
	s.http.CloseIdleConnections()
	return nil
}
