package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// This file is the side of the apps. What runs here is theirs and is not trusted: it is
// given Databases and what a visitor sent, and nothing it could reach a client by.

// Databases is all an app has: the facets its own token opens, by their names.
type Databases interface {
	// Run runs the statements in one transaction of a facet, which the first write
	// creates. A name that is not the app's is errNoDatabase, there or not.
	Run(ctx context.Context, name string, stmts ...client.Stmt) ([]client.StepResult, error)
}

var errNoDatabase = errors.New("there is no such database")

// program is the code of an app: SQL of its author's for each of its routes.
type program struct {
	Setup  []string         `json:"setup"` // run before every route, in the same transaction
	Routes map[string]route `json:"routes"`
}

type route struct {
	SQL string `json:"sql"`
	// Facet is the database to use. It may be a parameter, ":room": an app may have a
	// database for each of its rooms.
	Facet  string   `json:"facet"`
	Params []string `json:"params"` // parameters of the SQL, which visitors give
}

// What a program may have at most.
const (
	maxProgram = 64 << 10
	maxRoutes  = 64
	maxSetup   = 32
)

func parseProgram(src []byte) (*program, error) {
	var p program
	if err := json.Unmarshal(src, &p); err != nil {
		return nil, facet.Errorf(facet.CodeBadRequest, "read the program: %v", err)
	}
	if len(p.Routes) == 0 || len(p.Routes) > maxRoutes || len(p.Setup) > maxSetup {
		return nil, facet.Errorf(facet.CodeBadRequest, "a program has 1 to %d routes, and %d statements of setup at most", maxRoutes, maxSetup)
	}
	return &p, nil
}

var errNoRoute = errors.New("there is no such route")

// result is what a visitor gets.
type result struct {
	Columns []string `json:"columns"`
	Rows    [][]any  `json:"rows"`
	Changed int64    `json:"changed"`
}

// serve answers one visitor.
func (p *program) serve(ctx context.Context, dbs Databases, name string, params map[string]any) (*result, error) {
	r, ok := p.Routes[name]
	if !ok {
		return nil, fmt.Errorf("%w; there are %q", errNoRoute, slices.Sorted(maps.Keys(p.Routes)))
	}
	db := r.Facet
	if len(db) > 1 && db[0] == ':' {
		db, _ = params[db[1:]].(string)
	}
	var stmts []client.Stmt
	for _, sql := range p.Setup {
		stmts = append(stmts, client.Stmt{SQL: sql})
	}
	var args []any
	for _, param := range r.Params {
		args = append(args, client.Named(param, params[param]))
	}
	res, err := dbs.Run(ctx, db, append(stmts, client.Stmt{SQL: r.SQL, Args: args})...)
	if err != nil {
		return nil, err
	}
	last := res[len(res)-1]
	out := &result{Columns: []string{}, Rows: [][]any{}, Changed: last.RowsAffected}
	for _, c := range last.Columns {
		out.Columns = append(out.Columns, c.Name)
	}
	for _, row := range last.Rows {
		values := make([]any, len(row))
		for i, v := range row {
			values[i] = client.GoValue(v)
		}
		out.Rows = append(out.Rows, values)
	}
	return out, nil
}
