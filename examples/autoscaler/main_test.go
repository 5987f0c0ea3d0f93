package main

import "context"

func Example_run() {
	if err := run(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// 50 jobs wait, and a worker does 100 a minute: want 1
	//     launch-instance worker-1
	// 350 jobs wait, and a worker does 100 a minute: want 4
	//     launch-instance worker-2
	//     launch-instance worker-3
	//     launch-instance worker-4
	// 720 jobs wait, and a worker does 100 a minute: want 8
	//     launch-instance worker-5
	//     launch-instance worker-6
	//     launch-instance worker-7
	//     launch-instance worker-8
	// 720 jobs wait, and a worker does 100 a minute: want 8
	// 120 jobs wait, and a worker does 100 a minute: want 4
	//     terminate-instance worker-5
	//     terminate-instance worker-6
	//     terminate-instance worker-7
	//     terminate-instance worker-8
	// 0 jobs wait, and a worker does 100 a minute: want 2
	//     terminate-instance worker-3
	//     terminate-instance worker-4
	// 0 jobs wait, and a worker does 100 a minute: want 1
	//     terminate-instance worker-2
}
