<?php
// Swoole: what `compare` measures. One reactor thread and one worker on 127.0.0.1.
//
//     php -d extension=PATH/swoole.so server.php SCENARIO base|process PORT [CERTIFICATE KEY]
//
// Coroutines are off: no handler here waits for anything, and Swoole is faster without them.

[, $scenario, $mode, $port] = $argv;
$secure = $argc > 5;

$options = [
    'worker_num' => 1,
    'reactor_num' => 1,
    'enable_coroutine' => false,
    'max_connection' => 100000,
    'backlog' => 4096,
    'log_level' => SWOOLE_LOG_ERROR,
];
if ($secure) {
    $options += [
        'ssl_cert_file' => $argv[4],
        'ssl_key_file' => $argv[5],
        'ssl_protocols' => SWOOLE_SSL_TLSv1_3,
    ];
}

$class = match ($scenario) {
    'http' => Swoole\Http\Server::class,
    'websocket', 'broadcast' => Swoole\WebSocket\Server::class,
    default => Swoole\Server::class,
};
$kind = SWOOLE_SOCK_TCP | ($secure ? SWOOLE_SSL : 0);
$server = new $class('127.0.0.1', (int) $port, $mode === 'base' ? SWOOLE_BASE : SWOOLE_PROCESS, $kind);

switch ($scenario) {
    case 'tcp':
        $server->on('receive', function ($server, $fd, $reactor, $data) {
            $server->send($fd, $data);
        });
        break;
    case 'http':
        $server->on('request', function ($request, $response) {
            $response->header('Content-Type', 'text/plain');
            $response->end("Hello from Gannet\n");
        });
        break;
    case 'websocket':
        $server->on('message', function ($server, $frame) {
            $server->push($frame->fd, $frame->data, $frame->opcode);
        });
        break;
    case 'broadcast':
        // What one subscriber has not taken yet stands in this buffer.
        $options['socket_buffer_size'] = 64 << 20;
        $options['buffer_output_size'] = 64 << 20;
        $server->on('message', function ($server, $frame) {
            foreach ($server->connections as $fd) {
                $server->push($fd, $frame->data, $frame->opcode);
            }
        });
        break;
    case 'tasks':
        $options['task_worker_num'] = 2;
        $server->on('receive', function ($server, $fd, $reactor, $data) {
            $server->task([$fd, $data]);
        });
        $server->on('task', function ($server, $task, $from, $data) {
            return $data;
        });
        $server->on('finish', function ($server, $task, $data) {
            $server->send($data[0], $data[1]);
        });
        break;
    default:
        fwrite(STDERR, "no scenario $scenario\n");
        exit(2);
}

$server->set($options);
$server->start();
