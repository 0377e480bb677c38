package internal

import (
	"fmt"
	"go/ast"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The law: what each package may import of this module. A package stands on a
// floor and imports from the floors above it (lower numbers) only, never from
// its own, but for the packages named in also. Tests are free.
//
// A new package is added here, on the lowest number that its imports allow.
var law = map[string]place{
	// The words, and what needs nothing else.
	"internal/ha":             {floor: 10},
	"internal/secret":         {floor: 10},
	"internal/clock":          {floor: 11},
	"internal/mtls":           {floor: 11},
	"internal/places":         {floor: 11},
	"internal/tcp":            {floor: 11},
	"internal/mtls/authority": {floor: 12},
	"internal/mtls/join":      {floor: 13},

	// Pure values.
	"internal/manifest": {floor: 20},

	// The core and its input.
	"internal/config":         {floor: 30},
	"internal/decide/place":   {floor: 29},
	"internal/decide/ladder":  {floor: 30},
	"internal/decide/cluster": {floor: 30},
	"internal/decide/link":    {floor: 30},
	"internal/decide/files":   {floor: 30},
	"internal/decide/jobs":    {floor: 30},

	// What records and replays it.
	"internal/sim":     {floor: 35},
	"internal/journal": {floor: 35},
	"internal/status":  {floor: 35},

	// The edges. Only proc forks; the others are given a function for it.
	"internal/proc":              {floor: 40},
	"internal/proc/...":          {floor: 41, siblings: true},
	"internal/deadman":           {floor: 40},
	"internal/check":             {floor: 40},
	"internal/beat":              {floor: 40},
	"internal/attach":            {floor: 40},
	"internal/evidence":          {floor: 40},
	"internal/contract/metadata": {floor: 39},
	"internal/contract":          {floor: 40},
	"internal/contract/hold":     {floor: 41},
	"internal/part":              {floor: 40},
	"internal/store/etcdpb":      {floor: 39},
	"internal/store/disk":        {floor: 39},
	"internal/store":             {floor: 40},
	"internal/store/member":      {floor: 41},
	"internal/netpath":           {floor: 40},
	"internal/addr":              {floor: 40},
	"internal/replica":           {floor: 40},
	"internal/remote":            {floor: 40},
	"internal/pair":              {floor: 40},

	// The loops.
	"internal/engine": {floor: 50},
	"internal/roll":   {floor: 50},
	"internal/voter":  {floor: 51},

	// Who may, and why.
	"internal/access": {floor: 60},
	"internal/ask":    {floor: 60},

	// The outside.
	"internal/rpc":    {floor: 70},
	"internal/notify": {floor: 70},
	"internal/snmp":   {floor: 70},
	"internal/web":    {floor: 70},

	// The wiring. The tool speaks rpc only; the commands that are no questions to a
	// daemon (run, check, import, replay) are given to it by what they start.
	"internal/port":         {floor: 80},
	"internal/daemon":       {floor: 80},
	"internal/agent":        {floor: 80},
	"internal/cli":          {floor: 81},
	"internal/need":         {floor: 81, testOnly: true},
	"internal/echo":         {floor: 81, testOnly: true},
	"internal/scenario":     {floor: 81, testOnly: true},
	"internal/lab":          {floor: 82, testOnly: true},
	"internal/lab/rack":     {floor: 82, testOnly: true},
	"internal/lab/register": {floor: 82, testOnly: true},

	// What is built from it. The SDK and the contract are for others as well: they
	// import nothing from inside.
	".":                {floor: 0, published: true},
	"api/gemel/v1":     {floor: 0, published: true},
	"api/gemel/v1/...": {floor: 1, published: true},
	"cmd/gemel":        {floor: 90},
	"cmd/gemel-store":  {floor: 90},
	"cmd/gemel-agent":  {floor: 90},
	"examples/...":     {floor: 5},
	"bench/...":        {floor: 91},
	"trial/...":        {floor: 91},
	"trial/cluster":    {floor: 91, testOnly: true},
	"internal":         {floor: 99},
}

// A place is where a package stands.
type place struct {
	floor     int
	also      []string // packages of its own floor or below that it may import all the same
	siblings  bool     // packages under the same /... entry may import each other
	published bool     // every package may import it but a pure one
	testOnly  bool     // only tests, and packages that are themselves for tests, may import it
}

// Pure packages: what they decide depends on nothing but what they are given.
var pure = []string{"internal/ha", "internal/manifest", "internal/config", "internal/sim", "internal/decide/"}

// bannedImports may not be imported by a pure package, nor anything below them.
var bannedImports = []string{"net", "os", "sync", "math/rand", "log", "crypto/rand", "syscall", "unsafe", "runtime", "golang.org/x/sys"}

// allowedImports are below a banned one and are only values.
var allowedImports = []string{"net/netip", "net/url"}

// bannedTime are the names of package time that look at a clock or wait for one.
var bannedTime = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}

// owners says which packages may import a module from outside. A module that
// is not here is in no package: add it here and in docs/dependencies.md.
var owners = map[string][]string{
	"go.etcd.io":                          {"internal/store/member"},
	"google.golang.org/grpc":              {"internal/store/member"},
	"go.uber.org/zap":                     {"internal/store/member"},
	"github.com/goccy/go-yaml":            {"internal/config"},
	"github.com/invopop/jsonschema":       {"internal/config"},
	"github.com/vishvananda/netlink":      {"internal/addr", "internal/netpath"},
	"github.com/mdlayher":                 {"internal/addr", "internal/netpath"},
	"github.com/gosnmp/gosnmp":            {"internal/snmp", "internal/notify"},
	"github.com/cilium/ebpf":              {"internal/proc/gate"},
	"github.com/google/nftables":          {"internal/deadman"},
	"github.com/fsnotify/fsnotify":        {"internal/replica"},
	"github.com/google/renameio":          {"internal/replica"},
	"github.com/pkg/xattr":                {"internal/replica"},
	"github.com/klauspost/compress":       {"internal/replica"},
	"github.com/zeebo/blake3":             {"internal/replica"},
	"github.com/jotfs/fastcdc-go":         {"internal/replica"},
	"kernel.org/pub/linux/libs/security":  {"internal/proc/"},
	"github.com/elastic/go-seccomp-bpf":   {"internal/proc/"},
	"github.com/coreos/go-systemd":        {"internal/daemon", "internal/notify"},
	"github.com/systemd/slog-journal":     {"internal/daemon", "internal/notify"},
	"github.com/prometheus/client_golang": {"internal/rpc", "internal/daemon"},
	"go.opentelemetry.io/otel":            {"internal/daemon"},
	"connectrpc.com/connect":              {"api/", "internal/rpc", "internal/remote", "internal/cli", "internal/agent", "internal/store"},
	"google.golang.org/protobuf":          {"api/", "internal/rpc", "internal/remote", "internal/check", "internal/cli", "internal/store/"},
	"golang.org/x/net/bpf":                {"internal/addr"},
	"golang.org/x/net/icmp":               {"internal/check"},
	"golang.org/x/net/ipv4":               {"internal/check"},
	"golang.org/x/net/ipv6":               {"internal/addr", "internal/check"},
	"golang.org/x/net/http2":              {"internal/check", "internal/rpc", "internal/remote"},
	"github.com/spf13/cobra":              {"internal/cli", "internal/agent"},
	"github.com/spf13/pflag":              {"internal/cli", "internal/agent"},
	"charm.land":                          {"internal/cli"},
	"github.com/anishathalye/porcupine":   {"internal/lab/register"},
	"golang.org/x/sys":                    {"internal/", "cmd/", "bench/", "trial/", "examples/"},
}

func TestLaw(t *testing.T) {
	report(t, "the law of imports (internal/law_test.go) is broken", breaches(wholeTree(t)))
}

// breaches lists every import that the law forbids.
func breaches(t *tree) []string {
	var out []string
	for _, p := range t.pkgs {
		at, ok := placeOf(p.dir)
		if !ok {
			out = append(out, fmt.Sprintf("%s: this package is not in the law; add it to var law in internal/law_test.go, on the lowest floor that its imports allow", p.dir))
			continue
		}
		for _, f := range p.files {
			if f.test {
				continue
			}
			for _, imp := range f.ast.Imports {
				name, err := strconv.Unquote(imp.Path.Value)
				if err != nil {
					out = append(out, t.at(imp)+": "+err.Error())
					continue
				}
				if why := forbidden(p.dir, at, name); why != "" {
					out = append(out, fmt.Sprintf("%s: %s may not import %s: %s", t.at(imp), p.dir, name, why))
				}
			}
			if isPure(p.dir) {
				out = append(out, impurities(t, p.dir, f)...)
			}
		}
	}
	// With the member of the store comes all of etcd, into each process of the program.
	for _, p := range []string{"internal/daemon", "internal/cli"} {
		out = append(out, reaches(t, p, "internal/store/member", "internal/voter")...)
	}
	return append(out, reaches(t, "cmd/gemel-agent", "internal/store", "internal/web")...)
}

// placeOf finds the entry of a package: its own, or the nearest /... above it.
func placeOf(dir string) (place, bool) {
	if at, ok := law[dir]; ok {
		return at, true
	}
	for up := path.Dir(dir); up != "."; up = path.Dir(up) {
		if at, ok := law[up+"/..."]; ok {
			return at, true
		}
	}
	return place{}, false
}

func isPure(dir string) bool {
	return slices.ContainsFunc(pure, func(p string) bool { return within(dir, p) })
}

// within reports whether dir is p, or below p when p ends with a slash.
func within(dir, p string) bool {
	if strings.HasSuffix(p, "/") {
		return strings.HasPrefix(dir+"/", p)
	}
	return dir == p
}

// forbidden says why a package may not import another one, or "".
func forbidden(dir string, at place, name string) string {
	if name == modulePath || strings.HasPrefix(name, modulePath+"/") {
		other := strings.TrimPrefix(strings.TrimPrefix(name, modulePath), "/")
		if other == "" {
			other = "."
		}
		return forbiddenInside(dir, at, other)
	}
	if isPure(dir) {
		for _, ban := range bannedImports {
			if (name == ban || strings.HasPrefix(name, ban+"/")) && !slices.Contains(allowedImports, name) {
				return "it is pure: it reads no clock, no machine and no network"
			}
		}
	}
	if first, _, _ := strings.Cut(name, "/"); !strings.Contains(first, ".") {
		return ""
	}
	return forbiddenOutside(dir, name)
}

func forbiddenInside(dir string, at place, other string) string {
	to, ok := placeOf(other)
	switch {
	case !ok:
		return "it is not in the law"
	case slices.Contains(at.also, other):
		return ""
	case to.testOnly && !at.testOnly:
		return "it is for tests only"
	case at.published && !to.published:
		return "what is published imports nothing from inside"
	case to.published && isPure(dir):
		return "a pure package imports only pure ones"
	case at.siblings && path.Dir(dir) == path.Dir(other):
		return ""
	case to.floor == at.floor:
		return fmt.Sprintf("both stand on floor %d; give it a function or a small interface instead", at.floor)
	case to.floor > at.floor:
		return fmt.Sprintf("it stands on floor %d and %s is above it on %d", to.floor, path.Base(dir), at.floor)
	}
	return ""
}

func forbiddenOutside(dir, name string) string {
	if dir == "." {
		return "the SDK imports the standard library only"
	}
	best := ""
	for prefix := range owners {
		if (name == prefix || strings.HasPrefix(name, prefix+"/")) && len(prefix) > len(best) {
			best = prefix
		}
	}
	if best == "" {
		return "no package owns this module; add it to var owners in internal/law_test.go and to docs/dependencies.md"
	}
	if slices.ContainsFunc(owners[best], func(o string) bool { return within(dir, o) }) {
		return ""
	}
	return fmt.Sprintf("only %s may", strings.Join(owners[best], ", "))
}

// impurities lists the clock readings and goroutines of a pure package's file.
func impurities(t *tree, dir string, f *file) []string {
	timeName := ""
	for _, imp := range f.ast.Imports {
		if imp.Path.Value == `"time"` {
			timeName = "time"
			if imp.Name != nil {
				timeName = imp.Name.Name
			}
		}
	}
	var out []string
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if ok && timeName != "" && x.Name == timeName && slices.Contains(bannedTime, n.Sel.Name) {
				out = append(out, fmt.Sprintf("%s: %s is pure and may not use time.%s; it is given the instant", t.at(n), dir, n.Sel.Name))
			}
		case *ast.GoStmt:
			out = append(out, fmt.Sprintf("%s: %s is pure and starts no goroutine", t.at(n), dir))
		}
		return true
	})
	return out
}

// reaches complains if a package is linked, by whatever way, with one of others.
func reaches(t *tree, from string, others ...string) []string {
	imports := map[string][]string{}
	for _, p := range t.pkgs {
		for _, f := range p.files {
			for _, imp := range f.ast.Imports {
				if name, err := strconv.Unquote(imp.Path.Value); err == nil && !f.test && strings.HasPrefix(name, modulePath+"/") {
					imports[p.dir] = append(imports[p.dir], strings.TrimPrefix(name, modulePath+"/"))
				}
			}
		}
	}
	var out []string
	seen := map[string]bool{}
	var walk func(dir, way string)
	walk = func(dir, way string) {
		if seen[dir] {
			return
		}
		seen[dir] = true
		if slices.Contains(others, dir) {
			out = append(out, fmt.Sprintf("%s is linked with %s, which it may not be: %s", from, dir, way))
		}
		for _, next := range imports[dir] {
			walk(next, way+" -> "+next)
		}
	}
	walk(from, from)
	return out
}

// heavy are modules that the shadow, the monitor and the guard do without: their
// packages take memory in each process that has them, before main begins.
var heavy = []string{"go.etcd.io", "google.golang.org/grpc", "google.golang.org/genproto", "github.com/prometheus", "go.opentelemetry.io",
	"go.uber.org", "github.com/gogo", "github.com/grpc-ecosystem", "github.com/google/go-cmp", "github.com/golang/protobuf"}

// TestSlim asks the go tool what is linked into gemel as make builds it. As a check
// of this test it asks the same of the program that must have etcd.
func TestSlim(t *testing.T) {
	linked := func(pkg string) []string {
		c := exec.Command("go", "list", "-e", "-deps", "-tags", "slim", pkg) // -e: what is embedded is made by make
		c.Dir = ".."
		out, err := c.Output()
		if err != nil {
			t.Fatalf("asking what is linked: %v", err)
		}
		var found []string
		for _, dep := range strings.Fields(string(out)) {
			if slices.ContainsFunc(heavy, func(h string) bool { return dep == h || strings.HasPrefix(dep, h+"/") }) {
				found = append(found, dep)
			}
		}
		return found
	}
	if found := linked("./cmd/gemel"); len(found) != 0 {
		t.Errorf("the shadow and the monitor carry what only a member of the store needs:\n%s\ngo list -deps -tags slim ./cmd/gemel says by which way", strings.Join(found, "\n"))
	}
	if found := linked("./cmd/gemel-store"); len(found) < 50 {
		t.Errorf("gemel-store has only %d packages of those: this test sees nothing", len(found))
	}
}

// TestLawCatches plants one violation of each kind: a law that catches nothing
// is worse than none.
func TestLawCatches(t *testing.T) {
	for _, c := range []struct{ name, path, src, want string }{
		{"a floor below", "internal/ha/x.go", `package ha; import _ "gemel/internal/manifest"`, "it stands on floor 20"},
		{"its own floor", "internal/check/x.go", `package check; import _ "gemel/internal/beat"`, "both stand on floor 40"},
		{"unlisted", "internal/helpers/x.go", `package helpers`, "not in the law"},
		{"unlisted import", "internal/engine/x.go", `package engine; import _ "gemel/internal/helpers"`, "not in the law"},
		{"pure os", "internal/config/x.go", `package config; import _ "os/exec"`, "it is pure"},
		{"pure net", "internal/decide/ladder/x.go", `package ladder; import _ "net/http"`, "it is pure"},
		{"pure log", "internal/sim/x.go", `package sim; import _ "log/slog"`, "it is pure"},
		{"pure rand", "internal/decide/link/x.go", `package link; import _ "math/rand/v2"`, "it is pure"},
		{"pure clock", "internal/decide/ladder/x.go", "package ladder; import clk \"time\"; var _ = clk.Now", "time.Now"},
		{"pure goroutine", "internal/manifest/x.go", "package manifest; func f() { go f() }", "no goroutine"},
		{"pure api", "internal/config/x.go", `package config; import _ "gemel"`, "only pure ones"},
		{"etcd", "internal/engine/x.go", `package engine; import _ "go.etcd.io/etcd/client/v3"`, "only internal/store/member may"},
		{"netlink", "internal/proc/x.go", `package proc; import _ "github.com/vishvananda/netlink"`, "only internal/addr"},
		{"yaml", "internal/cli/x.go", `package cli; import _ "github.com/goccy/go-yaml"`, "only internal/config may"},
		{"snmp", "internal/engine/x.go", `package engine; import _ "github.com/gosnmp/gosnmp"`, "only internal/snmp"},
		{"unowned", "internal/engine/x.go", `package engine; import _ "github.com/nobody/nothing"`, "no package owns"},
		{"sdk outside", "x.go", `package gemel; import _ "golang.org/x/sys/unix"`, "standard library only"},
		{"sdk inside", "x.go", `package gemel; import _ "gemel/internal/ha"`, "nothing from inside"},
		{"api inside", "api/gemel/v1/x.go", `package gemelv1; import _ "gemel/internal/ha"`, "nothing from inside"},
		{"example", "examples/x/x.go", `package main; import _ "gemel/internal/ha"`, "it stands on floor"},
		{"need", "internal/engine/x.go", `package engine; import _ "gemel/internal/need"`, "for tests only"},
	} {
		t.Run(c.name, func(t *testing.T) { wantComplaint(t, breaches(planted(t, c.path, c.src)), c.want) })
	}
	t.Run("agent and store", func(t *testing.T) {
		wantComplaint(t, breaches(planted(t,
			"cmd/gemel-agent/x.go", `package main; import _ "gemel/internal/engine"`,
			"internal/engine/x.go", `package engine; import _ "gemel/internal/store"`,
		)), "cmd/gemel-agent -> internal/engine -> internal/store")
	})
	t.Run("daemon and etcd", func(t *testing.T) {
		wantComplaint(t, breaches(planted(t,
			"internal/daemon/x.go", `package daemon; import _ "gemel/internal/roll"`,
			"internal/roll/x.go", `package roll; import _ "gemel/internal/store/member"`,
		)), "internal/daemon -> internal/roll -> internal/store/member")
	})
	t.Run("what is right passes", func(t *testing.T) {
		report(t, "complaints about code that keeps the law", breaches(planted(t,
			"internal/config/x.go", "package config; import (\"net/netip\"; \"time\"; _ \"gemel/internal/manifest\"; _ \"github.com/goccy/go-yaml\"); var _ = time.Second; var _ netip.Addr",
			"internal/proc/spawn/x.go", `package spawn; import (_ "gemel/internal/proc"; _ "gemel/internal/proc/cgroup"; _ "golang.org/x/sys/unix")`,
			"internal/engine/x.go", `package engine; import (_ "gemel/internal/proc/spawn"; _ "gemel"; _ "os")`,
			"internal/config/x_test.go", `package config; import (_ "os"; _ "gemel/internal/need")`,
			"examples/x/main.go", `package main; import _ "gemel"`,
		)))
	})
}
