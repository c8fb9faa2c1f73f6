"""What the handlers of the RAG stack share. Standard library and boto3 only, so it runs unchanged on AWS Lambda.

asked       what is asked, by whom, in which conversation
trace       one question's path: correlation id, timed steps, log lines
metrics     measured values as one line of log
extract     bytes of a file -> a document of blocks
chunking    a document -> chunks with stable ids
embed       texts -> vectors, by Bedrock
store       chunks and vectors <-> an S3 Vectors index
versions    which index answers, which is being built
retrieve    a question -> the best passages, lexical and dense together
prompt      passages and a question -> the text for the model
generate    a prompt -> pieces of text, by Bedrock
caching     answers that were given before, for questions that mean the same
push        events of an answer to a browser's WebSocket
answering   a question -> passages -> a cited answer, as events
citations   marks in an answer -> passages
"""
