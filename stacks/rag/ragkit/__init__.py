"""What the handlers of the RAG stack share. Standard library and boto3 only, so it runs unchanged on AWS Lambda.

extract     bytes of a file -> a document of blocks
chunking    a document -> chunks with stable ids
embed       texts -> vectors, by Bedrock
store       chunks and vectors <-> an S3 Vectors index
retrieve    a question -> the best passages, lexical and dense together
prompt      passages and a question -> the text for the model
citations   marks in an answer -> passages
"""
