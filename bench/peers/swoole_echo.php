<?php
// An echo server of Swoole, for the bench: php swoole_echo.php tcp|ws|http PORT [process|base]
// One reactor, one worker; the worker's title says what it is.

[, $protocol, $port] = $argv;
$mode = ($argv[3] ?? 'process') === 'base' ? SWOOLE_BASE : SWOOLE_PROCESS;
$class = ['tcp' => Swoole\Server::class, 'ws' => Swoole\WebSocket\Server::class, 'http' => Swoole\Http\Server::class];
$server = new $class[$protocol]('127.0.0.1', (int) $port, $mode);
$server->set(['reactor_num' => 1, 'worker_num' => 1, 'log_level' => SWOOLE_LOG_ERROR]);
$server->on('workerStart', function () {
    cli_set_process_title('swoole worker');
    // What a start takes, as --start-ms of the bench does it with Gannet.
    usleep(1000 * (int) getenv('START_MS'));
});
switch ($protocol) {
    case 'tcp':
        $server->on('receive', fn($server, $fd, $reactor, $data) => $server->send($fd, $data));
        break;
    case 'ws':
        $server->on('message', fn($server, $frame) => $server->push($frame->fd, $frame->data, $frame->opcode));
        break;
    case 'http':
        $server->on('request', fn($request, $response) => $response->end("Hello from Swoole\n"));
        break;
}
$server->start();
