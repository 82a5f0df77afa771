<?php
// What `table` of the bench does with Gannet's table, on Swoole\Table:
//
//     php -d extension=swoole.so bench/peers/swoole_table.php ROWS
//
// It fills a table, makes two processes, prints "ready", and then obeys lines on its standard input:
// "OPERATION PROCESSES START WINDOW". So many of the processes begin at START, by the monotonic clock,
// and go on for WINDOW; each answers with "OPERATIONS WALL PROCESSOR". All times are nanoseconds.
//
// The operations "loop" and "loop_set" do not touch the table. They are what the interpreter takes to go
// through the keys, and for "loop_set" to make the array that is stored: what is to be subtracted.

use Swoole\Process;
use Swoole\Table;

const PROCESSES = 2;
// Between two looks at the clock. Iterating looks after each pass.
const BATCH = 1000;

$rows = (int) ($argv[1] ?? 100_000);

// As many slots as there are rows, and as many again for keys that fall on one slot: with less, some
// of the rows would not fit.
$table = new Table($rows, 1.0);
$table->column('first', Table::TYPE_INT);
$table->column('second', Table::TYPE_INT);
$table->column('text', Table::TYPE_STRING, 64);
$table->create();
$text = str_repeat('x', 64);
for ($n = 0; $n < $rows; $n++) {
    $table->set("key:$n", ['first' => $n, 'second' => $n, 'text' => $text]);
}
if ($table->count() !== $rows) {
    fwrite(STDERR, "only {$table->count()} of $rows rows fit into the table\n");
    exit(1);
}

$pipes = [];
for ($index = 0; $index < PROCESSES; $index++) {
    [$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    $pid = pcntl_fork();
    if ($pid === 0) {
        array_map('fclose', $pipes);
        fclose($ours);
        fclose(STDIN);
        Process::setAffinity([$index % swoole_cpu_num()]);
        work($table, prepare($rows, $index), $text, $theirs);
        exit(0);
    }
    fclose($theirs);
    $pipes[] = $ours;
}
foreach ($pipes as $pipe) {
    fgets($pipe);
}
echo "ready\n";
while (($line = fgets(STDIN)) !== false) {
    [$operation, $processes, $start, $window] = explode(' ', trim($line));
    $chosen = array_slice($pipes, 0, (int) $processes);
    foreach ($chosen as $pipe) {
        fwrite($pipe, "$operation $start $window\n");
    }
    foreach ($chosen as $pipe) {
        echo fgets($pipe);
    }
}
array_map('fclose', $pipes);
while (pcntl_wait($status) > 0) {
}

/** All keys in an order of this process's own, in batches; they lie in memory in that order. */
function prepare(int $rows, int $seed): array
{
    mt_srand($seed);
    $order = range(0, $rows - 1);
    shuffle($order);
    return array_chunk(array_map(fn (int $n): string => "key:$n", $order), BATCH);
}

/** What a process does until its pipe is closed. */
function work(Table $table, array $batches, string $text, $pipe): void
{
    fwrite($pipe, "ready\n");
    while (($line = fgets($pipe)) !== false) {
        [$operation, $start, $window] = explode(' ', trim($line));
        while (hrtime(true) < (int) $start) {
        }
        $processor = processor_time();
        $begin = hrtime(true);
        $count = repeat($operation, $table, $batches, $text, $begin + (int) $window);
        $wall = hrtime(true) - $begin;
        fwrite($pipe, "$count $wall " . (processor_time() - $processor) . "\n");
    }
}

function repeat(string $operation, Table $table, array $batches, string $text, int $end): int
{
    $count = 0;
    if ($operation === 'iterate') {
        do {
            foreach ($table as $key => $row) {
                $count++;
            }
        } while (hrtime(true) < $end);
        return $count;
    }
    for ($next = 0; hrtime(true) < $end; $next = ($next + 1) % count($batches)) {
        $batch = $batches[$next];
        switch ($operation) {
            case 'get':
                foreach ($batch as $key) {
                    $table->get($key);
                }
                break;
            case 'set':
                foreach ($batch as $key) {
                    $table->set($key, ['first' => $next, 'second' => $count, 'text' => $text]);
                }
                break;
            case 'incr':
                foreach ($batch as $key) {
                    $table->incr($key, 'first');
                }
                break;
            case 'loop':
                foreach ($batch as $key) {
                }
                break;
            case 'loop_set':
                foreach ($batch as $key) {
                    $row = ['first' => $next, 'second' => $count, 'text' => $text];
                }
                break;
            default:
                fwrite(STDERR, "no operation $operation\n");
                exit(1);
        }
        $count += count($batch);
    }
    return $count;
}

function processor_time(): int
{
    $used = getrusage();
    return 1_000_000_000 * ($used['ru_utime.tv_sec'] + $used['ru_stime.tv_sec'])
        + 1_000 * ($used['ru_utime.tv_usec'] + $used['ru_stime.tv_usec']);
}
