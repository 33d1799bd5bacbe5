package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// rqlitePeer is rqlite through its HTTP API with kept connections, all to the
// leader: a request to another node would be one more hop.
type rqlitePeer struct{}

func (rqlitePeer) about() about {
	return about{Name: "rqlite", Program: "rqlited", Processes: clusterSize, Against: "facetd", Key: "a row of one table",
		Client:  "HTTP API, a kept connection for each caller to the leader; /db/execute, and /db/query?level=linearizable",
		Durable: "the Raft log fsynced by a majority of three nodes (default)"}
}

func (rqlitePeer) version(ctx context.Context, path string) (string, error) {
	return ask(ctx, path, "-version")
}

func (rqlitePeer) launches(at place) (all []launch, err error) {
	var join []string
	for _, p := range at.ports {
		join = append(join, loopback(p+1))
	}
	for k, p := range at.ports {
		all = append(all, launch{args: []string{"-node-id", fmt.Sprint(k + 1), "-http-addr", loopback(p), "-raft-addr", loopback(p + 1),
			"-bootstrap-expect", fmt.Sprint(len(at.ports)), "-join", strings.Join(join, ","), at.dirs[k]}})
	}
	return all, nil
}

func (rqlitePeer) open(ctx context.Context, at place, set settings) (session, error) {
	s := &rqliteSession{http: keptConnections(set.Callers)}
	for _, p := range at.ports {
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

func (s *rqliteSession) ask(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	return askHTTP(ctx, s.http, method, url, "application/json", body)
}

// run runs one statement and gives its rows.
func (s *rqliteSession) run(ctx context.Context, path string, statement ...any) ([][]any, error) {
	body, err := json.Marshal([]any{statement})
	if err != nil {
		return nil, err
	}
	raw, err := s.ask(ctx, http.MethodPost, s.leader+path, body)
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

func (s *rqliteSession) create(ctx context.Context, key int, value []byte) error {
	return s.write(ctx, key, value)
}

func (s *rqliteSession) write(ctx context.Context, key int, value []byte) error {
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
