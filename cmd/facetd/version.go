package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/facetd/facetd/internal/broken"
)

// version is set by the linker of a release: -X main.version=1.2.3.
var version = ""

// versionText is the version of this binary.
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	if revision == "" {
		return "devel"
	}
	return "devel-" + revision + dirty
}

// sqliteVersion is the version of the module that holds SQLite.
func sqliteVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "modernc.org/sqlite" {
				return d.Version
			}
		}
	}
	return "unknown"
}

func versionCommand() *command {
	return &command{
		name: "version", short: "print the version",
		examples: []string{"facetd version", "facetd version --json"},
		setup: func(fs *flag.FlagSet) action {
			asJSON := fs.Bool("json", false, "print JSON")
			return func(_ context.Context, p *program, _ []string) error {
				warning := broken.Warning()
				if *asJSON {
					fields := map[string]string{
						"version": versionText(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH, "sqlite": sqliteVersion(),
					}
					if warning != "" {
						fields["broken"] = warning
					}
					return json.NewEncoder(p.stdout).Encode(fields)
				}
				if warning != "" {
					fmt.Fprintln(p.stdout, warning)
				}
				_, err := fmt.Fprintf(p.stdout, "facetd %s (%s %s/%s, modernc.org/sqlite %s)\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH, sqliteVersion())
				return err
			}
		},
	}
}
