package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// maxConfigFile bounds a configuration file.
const maxConfigFile = 1 << 20

// parse reads the flags of a command from, in this order of precedence, the
// command line, the environment (FACETD_…), and the file --config names if the
// command has that flag. Flags and arguments may be mixed; everything after --
// is an argument.
func parse(fs *flag.FlagSet, args []string, env func(string) (string, bool)) (pos []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, flagError(fs, err)
		}
		rest := fs.Args()
		if len(rest) == 0 {
			break
		}
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			pos = append(pos, rest...)
			break
		}
		pos = append(pos, rest[0])
		args = rest[1:]
	}
	set := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { set[f.Name] = true })
	fs.VisitAll(func(f *flag.Flag) {
		name := envName(f.Name)
		if v, ok := env(name); ok && !set[f.Name] && err == nil {
			if serr := fs.Set(f.Name, v); serr != nil {
				err = usagef("environment variable %s=%q: %v", name, v, serr)
			}
			set[f.Name] = true
		}
	})
	if err != nil {
		return nil, err
	}
	if f := fs.Lookup("config"); f != nil && f.Value.String() != "" {
		if err := fromFile(fs, f.Value.String(), set); err != nil {
			return nil, err
		}
	}
	return pos, nil
}

func envName(name string) string {
	return "FACETD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// flagError says what package flag says, in the words of this program.
func flagError(fs *flag.FlagSet, err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	msg := err.Error()
	if name, ok := strings.CutPrefix(msg, "flag provided but not defined: -"); ok {
		name = strings.TrimLeft(name, "-")
		if strings.ContainsAny(name, " \t\n") {
			return usagef("an argument that begins with - looks like a flag; put -- before it")
		}
		hint := didYouMean(name, flagNames(fs), "")
		return usagef("unknown flag --%s%s", name, strings.Replace(hint, `"`, `"--`, 1))
	}
	if name, ok := strings.CutPrefix(msg, "flag needs an argument: -"); ok {
		return usagef("flag --%s needs a value", name)
	}
	return usagef("%s", strings.Replace(msg, " for flag -", " for flag --", 1))
}

// fromFile sets the flags a file names that are not set yet. A file holds lines
// "name = value", names as on the command line without their dashes; a value may
// be in double quotes; # begins a comment.
func fromFile(fs *flag.FlagSet, path string, set map[string]bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if info.Size() > maxConfigFile {
		return fmt.Errorf("read configuration: %s has %d bytes, limit %d", path, info.Size(), maxConfigFile)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	scan := bufio.NewScanner(bytes.NewReader(raw))
	scan.Buffer(nil, maxConfigFile)
	seen := make(map[string]int)
	for n := 1; scan.Scan(); n++ {
		name, value, err := configLine(scan.Text())
		if err != nil {
			return usagef("%s:%d: %v", path, n, err)
		}
		if name == "" {
			continue
		}
		if fs.Lookup(name) == nil || name == "config" {
			return usagef("%s:%d: unknown setting %q%s", path, n, name, didYouMean(name, flagNames(fs), ""))
		}
		if first := seen[name]; first != 0 {
			return usagef("%s:%d: %s was set on line %d already", path, n, name, first)
		}
		seen[name] = n
		if set[name] {
			continue
		}
		if err := fs.Set(name, value); err != nil {
			return usagef("%s:%d: %s = %q: %v", path, n, name, value, err)
		}
	}
	return scan.Err()
}

func configLine(line string) (name, value string, err error) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", "", nil
	}
	name, value, ok := strings.Cut(line, "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok || name == "" {
		return "", "", errors.New("write name = value")
	}
	if strings.HasPrefix(value, `"`) {
		quoted, err := strconv.QuotedPrefix(value)
		rest := ""
		if err == nil {
			rest = strings.TrimSpace(value[len(quoted):])
			value, err = strconv.Unquote(quoted)
		}
		if err != nil || rest != "" && rest[0] != '#' {
			return "", "", errors.New("the quotes of the value do not match")
		}
		return name, value, nil
	}
	if i := strings.Index(value, " #"); i >= 0 {
		value = strings.TrimSpace(value[:i])
	}
	return name, value, nil
}

// byteSize is a flag for a number of bytes: 512MiB, 1GB, 4096.
type byteSize int64

var byteUnits = []struct {
	suffix string
	n      int64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40}, {"b", 1},
}

func (b *byteSize) Set(s string) error {
	num, unit := strings.ToLower(strings.TrimSpace(s)), int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(num, u.suffix); ok {
			num, unit = strings.TrimSpace(rest), u.n
			break
		}
	}
	n, err := strconv.ParseInt(num, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return errors.New("write a size such as 512MiB or 1GB")
	}
	*b = byteSize(n * unit)
	return nil
}

func (b *byteSize) String() string {
	n := int64(*b)
	if n == 0 {
		return ""
	}
	for i := 3; i >= 0; i-- {
		if u := byteUnits[i]; n%u.n == 0 {
			return fmt.Sprintf("%d%ciB", n/u.n, u.suffix[0]-'a'+'A')
		}
	}
	return strconv.FormatInt(n, 10)
}

// list is a flag for values with commas between; it may be given several times.
type list []string

func (l *list) Set(s string) error {
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			*l = append(*l, v)
		}
	}
	return nil
}

func (l *list) String() string { return strings.Join(*l, ",") }
