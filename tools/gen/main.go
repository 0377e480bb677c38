// Command gen makes the Go code of the published API, and of what is said to an
// etcd, from their .proto files. It needs nothing but Go: the compiler and both
// plugins are pinned in this module's go.mod.
//
// It also holds them to a law: everything has a comment, and enums begin with an
// UNSPECIFIED zero.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"
)

// module is the Go module that the generated code belongs to.
const module = "gemel"

// trees are the directories with .proto files, and what stands before their names
// where they are registered: two files of one name in one program are an error.
var trees = map[string]string{"api": "", "internal/store/etcdpb": "gemel/etcd"}

func main() {
	root := flag.String("root", ".", "directory of the main module")
	check := flag.Bool("check", false, "write nothing; fail if what is there is not current")
	flag.Parse()
	if err := run(context.Background(), *root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root string, check bool) error {
	out := map[string]string{}
	for dir, prefix := range trees {
		if err := tree(ctx, filepath.Join(root, dir), prefix, out); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	if check {
		return compare(root, out)
	}
	for name, text := range out {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// tree adds the code of all .proto files below dir to out.
func tree(ctx context.Context, dir, prefix string, out map[string]string) error {
	names, err := protoFiles(dir, prefix)
	if err != nil {
		return fmt.Errorf("looking for .proto files: %w", err)
	}
	open := func(name string) (io.ReadCloser, error) {
		return os.Open(filepath.Join(dir, strings.TrimPrefix(name, prefix)))
	}
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: open}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := c.Compile(ctx, names...)
	if err != nil {
		return fmt.Errorf("compiling: %w", err)
	}
	var wrong []error
	for _, f := range files {
		wrong = append(wrong, law(f)...)
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	for _, p := range []struct{ tool, parameter string }{
		{"google.golang.org/protobuf/cmd/protoc-gen-go", "module=" + module},
		{"connectrpc.com/connect/cmd/protoc-gen-connect-go", "module=" + module + ",simple"},
	} {
		if err := plugin(ctx, request(names, files, p.parameter), p.tool, out); err != nil {
			return err
		}
	}
	return nil
}

// protoFiles returns the .proto files below dir, by the names that they are
// registered under.
func protoFiles(dir, prefix string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(at) != ".proto" {
			return err
		}
		rel, err := filepath.Rel(dir, at)
		names = append(names, path.Join(prefix, filepath.ToSlash(rel)))
		return err
	})
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("none below %s", dir)
	}
	return names, err
}

// request gathers the files and all that they import, imports first.
func request(names []string, files linker.Files, parameter string) *pluginpb.CodeGeneratorRequest {
	req := &pluginpb.CodeGeneratorRequest{FileToGenerate: names, Parameter: proto.String(parameter)}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		req.ProtoFile = append(req.ProtoFile, protoutil.ProtoFromFileDescriptor(f))
	}
	for _, f := range files {
		add(f)
	}
	return req
}

// plugin runs one pinned plugin and adds what it made to out.
func plugin(ctx context.Context, req *pluginpb.CodeGeneratorRequest, tool string, out map[string]string) error {
	in, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "tool", tool)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	b, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("running %s: %w", tool, err)
	}
	var res pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(b, &res); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", tool, err)
	}
	if res.Error != nil {
		return fmt.Errorf("%s: %s", tool, res.GetError())
	}
	for _, f := range res.File {
		out[f.GetName()] = f.GetContent()
	}
	return nil
}

// compare says which generated files are missing, old, or no longer made.
func compare(root string, out map[string]string) error {
	var wrong []string
	for name, text := range out {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || string(b) != text {
			wrong = append(wrong, name)
		}
	}
	for dir := range trees {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !generated(path) {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if _, ok := out[filepath.ToSlash(rel)]; !ok {
				wrong = append(wrong, rel+" (no longer made)")
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if len(wrong) > 0 {
		sort.Strings(wrong)
		return fmt.Errorf("not current: %s; run api/generate.sh", strings.Join(wrong, ", "))
	}
	return nil
}

func generated(path string) bool {
	return strings.HasSuffix(path, ".pb.go") || strings.HasSuffix(path, ".connect.go")
}

// law says what of f has no comment, and which enums do not begin well.
func law(f protoreflect.FileDescriptor) []error {
	var wrong []error
	locations := f.SourceLocations()
	var walk func(d protoreflect.Descriptor)
	comment := func(d protoreflect.Descriptor) {
		if strings.TrimSpace(locations.ByDescriptor(d).LeadingComments) == "" {
			wrong = append(wrong, fmt.Errorf("%s: %s has no comment", f.Path(), d.FullName()))
		}
	}
	walk = func(d protoreflect.Descriptor) {
		comment(d)
		switch d := d.(type) {
		case protoreflect.MessageDescriptor:
			for i := range d.Fields().Len() {
				comment(d.Fields().Get(i))
			}
			for i := range d.Messages().Len() {
				walk(d.Messages().Get(i))
			}
			for i := range d.Enums().Len() {
				walk(d.Enums().Get(i))
			}
		case protoreflect.EnumDescriptor:
			for i := range d.Values().Len() {
				comment(d.Values().Get(i))
			}
			if zero := d.Values().ByNumber(0); zero == nil || !strings.HasSuffix(string(zero.Name()), "_UNSPECIFIED") {
				wrong = append(wrong, fmt.Errorf("%s: %s has no UNSPECIFIED zero", f.Path(), d.FullName()))
			}
		case protoreflect.ServiceDescriptor:
			for i := range d.Methods().Len() {
				comment(d.Methods().Get(i))
			}
		}
	}
	for i := range f.Messages().Len() {
		walk(f.Messages().Get(i))
	}
	for i := range f.Enums().Len() {
		walk(f.Enums().Get(i))
	}
	for i := range f.Services().Len() {
		walk(f.Services().Get(i))
	}
	return wrong
}
