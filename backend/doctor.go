package backend

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/mem"
)

// Diagnosis is what a run on this machine can count on. A measurement that the engine cannot do is 0, and Problems says
// why.
type Diagnosis struct {
	Info
	Platform  string   `json:"platform"` // for example linux/amd64
	Go        string   `json:"go"`
	CPU       string   `json:"cpu,omitempty"`
	Cores     int      `json:"cores"`     // that this process may use
	MemTotal  uint64   `json:"mem_total"` // bytes
	MemFree   uint64   `json:"mem_free"`  // bytes that can be had without swapping
	GemmF32   float64  `json:"gemm_f32"`  // GFLOPS of a float32 matrix product
	GemmBF16  float64  `json:"gemm_bf16"` // GFLOPS of bfloat16 operands, float32 result
	Bandwidth float64  `json:"bandwidth"` // GB/s read and written by an elementwise sum
	GemmSize  int      `json:"gemm_size"` // n of the n x n matrices
	FirstRun  float64  `json:"first_run"` // seconds that compiling the float32 product took
	Plugins   []Plugin `json:"plugins"`   // all that were found
	Problems  []string `json:"problems,omitempty"`
}

// Diagnose opens the engine that spec names (as Open does) and measures it for about the time given.
func Diagnose(ctx context.Context, spec string, budget time.Duration) (Diagnosis, error) {
	d := Diagnosis{Platform: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), Cores: runtime.GOMAXPROCS(0)}
	problem := func(what string, err error) {
		if err != nil {
			d.Problems = append(d.Problems, what+": "+reason(err))
		}
	}
	if info, err := cpu.Info(); err == nil && len(info) > 0 {
		d.CPU = info[0].ModelName
	}
	if m, err := mem.VirtualMemory(); err == nil {
		d.MemTotal, d.MemFree = m.Total, m.Available
	} else {
		problem("memory", err)
	}
	var err error
	d.Plugins, err = List()
	problem("plugins", err)
	for _, p := range d.Plugins {
		problem("plugin", p.Verify())
	}
	be, info, err := Open(spec)
	if err != nil {
		return d, err
	}
	defer be.Finalize()
	d.Info = info
	// The pure-Go engine does 5 to 10 GFLOPS: the larger product would take seconds each.
	d.GemmSize = 1024
	if info.Engine == "go" {
		d.GemmSize = 384
	}
	share := budget / 3
	var perRun float64
	flop := 2 * float64(d.GemmSize) * float64(d.GemmSize) * float64(d.GemmSize)
	perRun, d.FirstRun, err = measureGemm(ctx, be, dtypes.Float32, d.GemmSize, share)
	problem("float32 product", err)
	d.GemmF32 = rate(flop, perRun)
	perRun, _, err = measureGemm(ctx, be, dtypes.BFloat16, d.GemmSize, share)
	problem("bfloat16 product", err)
	d.GemmBF16 = rate(flop, perRun)
	const elements = 1 << 24
	perRun, _, err = measure(ctx, be, share, func(x *graph.Node) *graph.Node { return graph.AddScalar(x, 1) },
		tensors.FromFlatDataAndDimensions(make([]float32, elements), elements))
	problem("elementwise sum", err)
	d.Bandwidth = rate(2*4*elements, perRun)
	return d, ctx.Err()
}

// rate is work a nanosecond, 0 if nothing was measured.
func rate(work, seconds float64) float64 {
	if seconds == 0 {
		return 0
	}
	return work / seconds / 1e9
}

func measureGemm(ctx context.Context, be compute.Backend, t dtypes.DType, n int, budget time.Duration) (perRun, first float64, err error) {
	x := make([]float32, n*n)
	for i := range x {
		x[i] = float32(i%17)/17 - .5
	}
	return measure(ctx, be, budget, func(x *graph.Node) *graph.Node {
		x = graph.ConvertDType(x, t)
		return graph.Dot(x, x).WithOutputDType(dtypes.Float32).Product()
	}, tensors.FromFlatDataAndDimensions(x, n, n))
}

// measure returns the seconds of the fastest run, and those of the first, which compiles. The fastest is what the
// machine can do; a slower one tells of its other work.
func measure(ctx context.Context, be compute.Backend, budget time.Duration, f func(*graph.Node) *graph.Node, in *tensors.Tensor) (perRun, first float64, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	defer func() { _ = in.FinalizeAll() }()
	// The second output is short: to read it is to wait for the engine, which may still be at work when Exec returns.
	exec, err := graph.NewExec(be, func(x *graph.Node) (y, first *graph.Node) {
		y = f(x)
		return y, graph.Slice(y, graph.AxisRange(0, 1))
	})
	if err != nil {
		return 0, 0, err
	}
	defer exec.Finalize()
	start := time.Now()
	for run := 0; run < 2 || time.Since(start) < budget; run++ {
		if err := ctx.Err(); err != nil {
			return perRun, first, err
		}
		began := time.Now()
		out, err := exec.Exec(in)
		if err != nil {
			return perRun, first, err
		}
		if err := out[1].ConstFlatData(func(any) {}); err != nil {
			return perRun, first, err
		}
		seconds := time.Since(began).Seconds()
		for _, t := range out {
			if err := t.FinalizeAll(); err != nil {
				return perRun, first, err
			}
		}
		switch {
		case run == 0:
			first = seconds
		case perRun == 0 || seconds < perRun:
			perRun = seconds
		}
	}
	return perRun, first, nil
}
